"""The folder of compiled and generated code: never inside the installed package."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path

#: Environment variable that sets the cache folder.
FOLDER_VARIABLE = "FLOWSIM_CACHE_DIR"
#: Digests that are kept, the last used ones: branches and versions side by side, not every edit; and seconds of last
#: use within which one is kept in any case, as a process may still load from it.
_KEPT, _IN_USE = 8, 86400.0
_SOLVERS = Path(__file__).resolve().parent


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
    """Whether files can be created in a folder."""
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
    """A folder private to this process: code must never be imported from a path that others can predict."""
    folder = tempfile.mkdtemp(prefix="flowsim-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def digest_of_sources() -> str:
    """Digest of the sources of this package, of flowsim's compiled modules, and of the versions of their compilers."""
    total = hashlib.sha256(f"{version('numba')} {version('llvmlite')}".encode())
    for path in sorted(_SOLVERS.rglob("*.py")):
        total.update(path.relative_to(_SOLVERS).as_posix().encode() + b"\0" + path.read_bytes())
    top = Path(str(sys.modules[__name__.partition(".")[0]].__file__)).resolve().parent
    for path in sorted(top.rglob("*.py")):
        if path.is_relative_to(top / "solvers"):
            continue
        content = path.read_bytes()
        if b"solvers.compilation" in content or b"njit" in content:
            total.update(path.relative_to(top).as_posix().encode() + b"\0" + content)
    return total.hexdigest()[:20]


@cache
def folder_of_digest(parent: Path) -> Path:
    """The folder of this digest; when it is created, all but the last few others are removed."""
    home = parent / "compiled"
    folder = home / digest_of_sources()
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted((each for each in home.iterdir() if each != folder), key=_last_used, reverse=True)
        for old in others[_KEPT - 1 :]:
            if _last_used(old) < time.time() - _IN_USE:
                shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.utime(folder)
    return folder


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
