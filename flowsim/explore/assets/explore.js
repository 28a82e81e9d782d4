// The address follows the controls without filling the history; screen readers hear the value, not the slider's place.
window.dash_clientside = Object.assign({}, window.dash_clientside, {
  explore: {
    follow: function (query) {
      if (typeof query === "string") {
        window.history.replaceState(null, "", query === "?" ? window.location.pathname : query);
      }
      for (const name of ["alpha", "eta", "decay", "depth"]) {
        const slider = document.getElementById(name);
        const shown = document.getElementById(name + "-shown");
        if (slider && shown) slider.setAttribute("aria-valuetext", shown.textContent);
      }
      document.documentElement.dataset.ready = String(Number(document.documentElement.dataset.ready || 0) + 1);
      return "";
    },
  },
});
