"""Where a sweep runs: versions, machine, processes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

#: One thread for each worker: the sweep itself fills the machine.
THREAD_VARIABLES = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMBA", "NUMEXPR")} | {
    "VECLIB_MAXIMUM_THREADS": "1"
}


def environment(packages: dict[str, str]) -> dict[str, Any]:
    """Python, the packages that the function reaches, NumPy, and the machine; no times, so that equal runs agree."""
    return {
        "versions": {"python": platform.python_version(), "numpy": importlib.metadata.version("numpy"), **packages},
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
    }


def process_is_alive(pid: int) -> bool:
    """Whether a process of this machine has this number."""
    if os.name == "nt":  # there, signal 0 is not a question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it exists and belongs to another user
        return True
    return True
