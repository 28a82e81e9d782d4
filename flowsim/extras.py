"""Optional libraries, imported on first use, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

#: library -> the extra of this package that installs it
_EXTRA_OF = {
    "dash": "explore",
    "distributed": "distributed",
    "flask": "explore",
    "h5netcdf": "hdf5",
    "loky": "sweep",
    "plotly": "report",
    "pyarrow": "parquet",
    "pydantic": "sweep",
    "sklearn": "learn",
    "werkzeug": "explore",
}


class MissingExtraError(ImportError):
    """A library of one of the package's extras is not installed."""


def need(name: str, what: str) -> ModuleType:
    """Import a module.

    Raises MissingExtraError with the feature that needs it and the extra to install.

    Parameters
    ----------
    name : str
        The module, such as ``"plotly.offline"``.
    what : str
        The feature that needs it, as the subject of the message.
    """
    library = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != library:
            raise  # it is installed, but fails to import
        extra = _EXTRA_OF[library]
        raise MissingExtraError(f"{what} needs {library}: pip install 'flowsim[{extra}]'.", name=error.name) from None
