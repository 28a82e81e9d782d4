"""A sweep to be killed: python victim.py STORE LOG RESULT POINTS [workers | scheduler file]."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np


def point(x: int, seed: int, log: str) -> dict[str, Any]:
    """About 20 ms of work whose last bit matters, and a line in the log for each call."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{x}\n".encode())
    os.close(handle)
    matrix = np.random.default_rng(seed).standard_normal((60, 60))
    for _ in range(40):
        matrix = np.linalg.qr(matrix @ matrix.T / 60 + np.eye(60) * x)[0]
    return {"matrix": matrix[: 1 + x % 3], "sum": matrix.sum(), "text": str(x)}


def main(store: str, log: str, result: str, points: str, where: str) -> None:
    # A shell starts what runs in the background with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import flowsim as fs
    from flowsim.results.netcdf import Labelled, write_plain

    workers: Any
    if where.isdigit():
        workers = int(where)
    else:
        import distributed

        workers = distributed.Client(scheduler_file=where)
    grid = {"x": range(int(points)), "log": log}
    found = fs.sweep(point, grid, workers=workers, store=store or None, seed=3)
    whole = Path(result).with_suffix(".part")
    write_plain(Labelled.of_xarray(found.drop_vars("log")), whole)
    whole.replace(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
