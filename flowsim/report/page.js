"use strict";
(() => {
  const root = document.documentElement;
  window.addEventListener("error", (event) => { root.dataset.error = event.message; });

  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  // Okabe & Ito; dashes tell the lines apart also in grey. The last is the page's own ink, on white and on black.
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "ink"];
  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const narrow = () => window.innerWidth < 640;
  const DASHES = ["solid", "dash", "dashdot"];
  const CLOCK_TITLES = { accelerated: "accelerated time", time: "time t", arclength: "arc length τ" };
  const MARGIN = { l: 70, r: 12, t: 34, b: 48 };  // the tool bar of a figure lies in its upper margin
  // Of a certificate's many fields, those that a reader needs to judge it.
  const CERTIFICATE = ["name", "paper", "statement", "applies", "hypothesis", "predicted", "measured", "margin", "holds"];
  // Every button by name: nothing that sends data anywhere.
  const BUTTONS = [["toImage"], ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
  const CONFIG = {
    responsive: true, displaylogo: false, modeBarButtons: BUTTONS, toImageButtonOptions: { format: "svg" },
  };

  // Plotly reads a little HTML in names; a feature may be called anything.
  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const typed = ({ dtype, bdata }) => ({ dtype, bdata });
  // Without simplification: Plotly would join points of a plateau by a line that is not level.
  const line = (i) => ({
    color: COLOURS[i % COLOURS.length] === "ink" ? style("--ink") : COLOURS[i % COLOURS.length],
    dash: DASHES[Math.floor(i / COLOURS.length) % DASHES.length], width: 1.8, simplify: false,
  });
  const number = (value) => {
    if (typeof value !== "number") return value === null || value === undefined ? "–" : String(value);
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(7)));
  };

  const columns = (runs, pick) => {
    const spans = runs.map(pick).filter(Boolean).map((column) => column.span);
    return [Math.min(...spans.map((span) => span[0])), Math.max(...spans.map((span) => span[1]))];
  };

  function timeAxis(run, clock) {
    const log = element("log-time").checked;
    const axis = { title: { text: CLOCK_TITLES[clock] }, type: log ? "log" : "linear", zeroline: false };
    // One frame for all runs, so that the slider moves the curves and not the axes; plain time has no common scale.
    const [low, high] = columns(clock === "time" ? [run] : data.runs, (one) => one.clocks[clock]);
    const jumps = run.jumps.map((jump) => jump.predicted).filter((time) => time > 0);
    const first = clock === "accelerated" && jumps.length ? Math.min(...jumps) / 2 : high * 1e-4;
    axis.range = log ? [Math.log10(first), Math.log10(high)] : [low, high];
    if (log) decades(axis, axis.range);
    return axis;
  }

  // Plotly labels 2, 5 between the decades of a short logarithmic axis; on a long one only the decades are legible.
  function decades(axis, [low, high]) {
    axis.dtick = high - low > 1.5 ? Math.ceil((high - low) / 8) : "D2";
    axis.exponentformat = "power";
    return axis;
  }

  function jumpLines(run, clock) {
    if (clock !== "accelerated") return [];
    return run.jumps.map((jump) => ({
      type: "line", x0: jump.predicted, x1: jump.predicted, yref: "paper", y0: 0, y1: 1, layer: "below",
      line: { color: "#999", width: 1, dash: "dot" },
    }));
  }

  // What all figures share: the page's own colours, and names below the figure where it is narrow.
  const frame = () => ({
    margin: narrow() ? { ...MARGIN, l: 56 } : MARGIN, font: { size: narrow() ? 11 : 13, color: style("--ink") },
    hovermode: "closest", paper_bgcolor: style("--ground"), plot_bgcolor: style("--ground"),
    legend: narrow() ? { orientation: "h", y: -0.42, yanchor: "top" } : {},
  });

  function layout(run, clock, yaxis, more) {
    const grid = { gridcolor: style("--grid"), linecolor: style("--rule") };
    return {
      ...frame(), xaxis: { ...grid, ...timeAxis(run, clock) }, yaxis: { zeroline: false, ...grid, ...yaxis },
      shapes: jumpLines(run, clock),
      // A zoom survives the slider, not a change of axes.
      uirevision: [clock, element("log-time").checked, element("log-loss").checked].join(), ...more,
    };
  }

  function padded([low, high], log) {
    if (log) return [Math.log10(low) - 0.3, Math.log10(high) + 0.3];
    const margin = 0.04 * (high - low || 1);
    return [low - margin, high + margin];
  }

  function draw(run) {
    const clock = element("clock").value;
    const x = () => typed(run.clocks[clock]);
    const logLoss = element("log-loss").checked;
    const lossSpan = columns(data.runs, (one) => one.loss);
    const loss = { title: { text: "L(β)" }, exponentformat: "power", type: logLoss ? "log" : "linear" };
    if (!logLoss || lossSpan[0] > 0) loss.range = padded(lossSpan, logLoss);
    const done = [Plotly.react("loss", [{ x: x(), y: typed(run.loss), mode: "lines", line: line(0), name: "loss" }],
      layout(run, clock, loss), CONFIG)];

    const all = data.runs.flatMap((one) => one.coordinates.map((coordinate) => coordinate.values.span));
    const span = [Math.min(0, ...all.map((one) => one[0])), Math.max(0, ...all.map((one) => one[1]))];
    const size = (one) => Math.max(...one.values.span.map(Math.abs));
    const named = new Set([...run.coordinates].sort((a, b) => size(b) - size(a)).slice(0, narrow() ? 10 : undefined));
    done.push(Plotly.react("coordinates", run.coordinates.map((coordinate) => ({
      x: x(), y: typed(coordinate.values), mode: "lines", line: line(coordinate.index), name: escaped(coordinate.name),
      showlegend: named.has(coordinate),
    })), layout(run, clock, { title: { text: "β<sub>i</sub>" }, range: padded(span, false) }, { showlegend: true }),
    CONFIG));

    element("drift-box").hidden = run.drift === null;
    if (run.drift !== null) {
      const drift = { type: "log", title: { text: "relative drift" }, exponentformat: "power" };
      const drifts = columns(data.runs, (one) => one.drift);
      drift.range = padded([Math.min(drifts[0], 1e-16), Math.max(drifts[1], 1e-9)], true);
      decades(drift, drift.range);
      done.push(Plotly.react("drift", [{ x: x(), y: typed(run.drift), mode: "lines", line: line(0), name: "drift" }],
        layout(run, clock, drift), CONFIG));
    }
    return done;
  }

  function fill(table, head, rows) {
    table.replaceChildren();
    if (head) {
      const row = table.createTHead().insertRow();
      for (const name of head) {
        const cell = document.createElement("th");
        cell.scope = "col";
        cell.textContent = name;
        row.append(cell);
      }
    }
    const body = table.createTBody();
    for (const values of rows) {
      const row = body.insertRow();
      for (const [place, value] of values.entries()) {
        const cell = document.createElement(place === 0 && !head ? "th" : "td");
        if (head) cell.dataset.label = head[place];
        else if (place === 0) cell.scope = "row";
        row.append(cell);
        if (typeof value === "boolean") {
          cell.textContent = value ? "yes" : "no";
          cell.className = value ? "yes" : "no";
        } else {
          cell.textContent = number(value);
          if (typeof value === "number") cell.className = "number";
        }
      }
    }
  }

  // A certificate that neither holds nor fails says why it is open.
  function answer(row, key) {
    if (key === "holds" && typeof row[key] !== "boolean" && row.status) return row.status;
    return row[key] === undefined ? null : row[key];
  }

  function plain(value) {
    if (value === null || ["boolean", "number", "string"].includes(typeof value)) return value;
    return JSON.stringify(value);
  }

  function tables(run) {
    fill(element("facts"), null, run.facts);
    fill(element("jumps"), ["predicted", "measured", "difference", "feature", "sign", "kind"], run.jumps.map((jump) => [
      jump.predicted, jump.measured === null ? jump.why || "not crossed" : jump.measured,
      jump.measured === null ? null : jump.measured - jump.predicted, jump.feature, jump.sign, jump.kind,
    ]));
    element("jumps").hidden = run.jumps.length === 0;
    element("limit").hidden = run.jumps.length > 0;
    element("limit").textContent = run.limit === "found" ? "The limit has no jump." : run.limit;
    const rows = run.certificates;
    element("certificates-box").hidden = rows === null;
    if (rows !== null) {
      const all = [...new Set(rows.flatMap((row) => Object.keys(row)))];
      const head = all.includes("statement") ? all.filter((key) => CERTIFICATE.includes(key)) : all;
      const show = (identity, chosen) => fill(element(identity), head.map((key) => key.replace(/_/g, " ")),
        chosen.map((row) => head.map((key) => plain(answer(row, key)))));
      const others = rows.filter((row) => row.applies === false);
      show("certificates", rows.filter((row) => row.applies !== false));
      show("not-applying", others);
      element("not-applying-box").hidden = others.length === 0;
      element("not-applying-title").textContent = `${others.length} that do not apply, and why`;
    }
    const out = run.left_out;
    element("left-out").textContent = out.count ? `(${out.count} that stay below ${number(out.largest)} not drawn)` : "";
    element("invariants").textContent = run.invariants ? `(${run.invariants})` : "";
  }

  function compare() {
    const what = data.comparison;
    if (!what || !what.curves.length) return [];
    element("comparison-box").hidden = false;
    element("comparison-title").textContent = what.title;
    const scale = (values) => what.log
      ? decades({ type: "log" }, padded([Math.min(...values), Math.max(...values)], true))
      : { type: "linear" };
    return [Plotly.react("comparison", what.curves.map((curve, i) => ({
      x: curve.x, y: curve.y, mode: "lines+markers", line: line(i), name: escaped(curve.name),
      showlegend: i < 5 || !narrow(),
    })), {
      ...frame(), showlegend: true,
      xaxis: { title: { text: what.x }, ...scale(what.curves.flatMap((curve) => curve.x)) },
      yaxis: { title: { text: what.y }, ...scale(what.curves.flatMap((curve) => curve.y)) },
    }, CONFIG)];
  }

  function show() {
    const run = data.runs[Number(element("slider").value)];
    element("slider-label").textContent = run.label;
    element("slider").setAttribute("aria-valuetext", run.label);
    root.dataset.run = run.name;
    tables(run);
    return Promise.all(draw(run));
  }

  const slider = element("slider");
  slider.max = data.runs.length - 1;
  element("slider-box").hidden = data.runs.length < 2;
  element("log-time").checked = data.log_time;
  for (const id of ["slider", "clock", "log-time", "log-loss"]) element(id).addEventListener("input", show);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { show(); compare(); });
  Promise.all([show(), ...compare()]).then(() => { root.dataset.ready = "true"; });
})();
