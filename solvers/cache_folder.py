"""Where compiled and generated code is kept: never in the package's own folders."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

#: Environment variable that moves the cache.
FOLDER_VARIABLE = "FLOWSIM_CACHE_DIR"


def cache_folder() -> Path:
    """``$FLOWSIM_CACHE_DIR``, else the user's cache folder, else a temporary one."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        folder = Path(chosen)
    else:
        import platformdirs

        folder = Path(platformdirs.user_cache_dir("flowsim", appauthor=False)) / "kernels"
    return folder if writable(folder) else temporary_folder()


@cache
def writable(folder: Path) -> bool:
    """Whether files can be made there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=folder)
        os.close(handle)
        os.unlink(probe)
    except OSError:
        return False
    return True


@cache
def temporary_folder() -> Path:
    """One folder of this process alone: a name that others can guess must never be imported from."""
    folder = tempfile.mkdtemp(prefix="flowsim-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
