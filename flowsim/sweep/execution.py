"""The sweep itself."""

from __future__ import annotations

import inspect
import json
import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim.sweep.assemble import assemble
from flowsim.sweep.dispatch import compute
from flowsim.sweep.grid import Points, describe
from flowsim.sweep.host import environment
from flowsim.sweep.identity import Identity, digest, identify
from flowsim.sweep.pool import Pool
from flowsim.sweep.store import Outcome, Store

if TYPE_CHECKING:
    import xarray

log = logging.getLogger("flowsim.sweep")


@dataclass(frozen=True)
class Plan:
    """A sweep before it starts."""

    function: Callable[..., Any]
    points: Points
    parameters: list[dict[str, Any]]  #: parameters of each point, in C order of the result, including the seed
    keys: list[str]  #: key of each point: a digest of code, parameters and seed. Equal points share a key
    seeds: list[int] | None
    identity: Identity


def sweep(
    function: Callable[..., Any],
    grid: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    workers: int | Executor | Any = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    *,
    seed: int | None = None,
    retry_failed: bool = False,
) -> xarray.Dataset:
    """Evaluate a function over a grid or a list of parameter points.

    Parameters
    ----------
    function : callable
        Called with the parameters of one point by name. It returns a number, text, an array, a mapping of those, an
        ``xarray`` object, or anything with ``to_xarray()``, such as a trajectory.
    grid : mapping or sequence of mappings
        ``{"alpha": [1e-2, 1e-4], "depth": [2, 3], "t_end": 5.0}``: every combination of the lists; a value that is
        not a list, tuple, range or array is a constant. Or a list of points, ``[{"alpha": 1e-2}, {"alpha": 1e-4}]``.
    workers : int, concurrent.futures.Executor or distributed.Client
        Processes on this machine (1: this process), or another executor. Here and in processes started by flowsim, BLAS
        and OpenMP use one thread, so that neither speed nor the last bit depends on the number of processes; the
        threads of a given executor are not changed.
    store : path-like, optional
        A file on a local disk that holds every finished point from the moment it is finished. The same call with
        the same store computes missing points only, also while another process does the same. Changed code,
        package versions or parameters define new points; old ones remain in the file, unused.
    progress : bool, optional
        Show a progress bar and a summary; by default on a terminal.
    seed : int, optional
        Gives each point its own ``seed=``, drawn from this one and the point's parameters
        (``numpy.random.SeedSequence``), so it depends neither on the order nor on the other points of the grid.
    retry_failed : bool
        Compute stored failures again.

    Returns
    -------
    xarray.Dataset
        One dimension per axis of the grid (``point`` for a list), then those of the results. Coordinates: the
        parameters, ``seed``, and ``error``, the empty text where a point succeeded. An unnamed result is ``value``.
        ``attrs`` name the function, its code, the versions and machines that computed it. ``to_netcdf`` with `seed`,
        whose 63 bits the classic form has no integers for, takes the extra ``hdf5``.

    Raises
    ------
    ValueError
        For a wrong grid, parameters the function does not take, or a file that is not a store.
    RuntimeError
        If the workers themselves fail; finished points are in the store.

    Notes
    -----
    A point that fails is recorded with its error, and the others continue. A worker that dies is replaced and its
    points are computed again, one at a time, to identify the cause.

    Examples
    --------
    >>> import flowsim as fs
    >>> fs.sweep(pow, [{"base": 2, "exp": 3}, {"base": 3, "exp": 2}])["value"].values
    array([8, 9])
    """
    prepared = plan(function, grid, seed=seed)
    pool = Pool(workers)
    with Store(store) as opened:
        env = environment(prepared.identity.packages)
        opened.begin_run(prepared.identity.name, prepared.identity.code, env, env["machine"]["host"])
        finished = {outcome.key: outcome.status for outcome in opened.read(prepared.keys)}
        if retry_failed:
            failed = [key for key, status in finished.items() if status == "failed"]
            opened.forget(failed)
            for key in failed:
                del finished[key]
        _log_stored_points(opened, prepared, len(finished))
        _compute(prepared, pool, opened, set(finished), progress)
        outcomes = {o.key: o for o in opened.read(prepared.keys)}
        lost = [key for key in prepared.keys if key not in outcomes]
        if lost:
            raise RuntimeError(f"{len(lost)} finished points cannot be read back from {opened.path}; run again.")
        environments = opened.environments(prepared.keys)
    ordered = [outcomes[key] for key in prepared.keys]
    _summarise(prepared, ordered)
    attrs = {
        "function": prepared.identity.name,
        "code": prepared.identity.code,
        "environments": json.dumps(environments, sort_keys=True),
        **({} if seed is None else {"root_seed": seed}),
    }
    return assemble(prepared.points, ordered, prepared.seeds, attrs)


def plan(
    function: Callable[..., Any], grid: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, seed: int | None = None
) -> Plan:
    """Validate a sweep without computing any point."""
    if not callable(function):
        raise ValueError(f"`function` must be callable; received {type(function).__name__}.")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0):
        raise ValueError(f"`seed` must be an integer >= 0; received {seed!r}.")
    points = Points.read(grid)
    identity = identify(function)
    parameters = points.all()
    known: dict[int, str] = {}  # axes share their values: digest each object once
    digests = []
    for values in parameters:
        row = {}
        for name, value in values.items():
            if id(value) not in known:
                known[id(value)] = _digest(name, value)
            row[name] = known[id(value)]
        digests.append(row)
    seeds = None
    if seed is not None:
        if any("seed" in values for values in parameters):
            raise ValueError("give either `seed` or a parameter named 'seed' in `grid`; received both.")
        seeds = [_seed(int(seed), row) for row in digests]
        parameters = [{**values, "seed": own} for values, own in zip(parameters, seeds, strict=True)]
        digests = [{**row, "seed": str(own)} for row, own in zip(digests, seeds, strict=True)]
    _check_signature(function, parameters)
    keys = [digest([identity.name, identity.code, row]) for row in digests]
    return Plan(function, points, parameters, keys, seeds, identity)


def _compute(plan: Plan, pool: Pool, store: Store, finished: set[str], progress: bool | None) -> None:
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    todo = {key: values for key, values in zip(plan.keys, plan.parameters, strict=True) if key not in finished}
    if not todo:
        return
    order = list(todo)
    if store.other_writers():
        random.shuffle(order)  # so that two sweeps over one store rarely compute the same point
    total = len(set(plan.keys))
    failures = 0
    with (
        threadpool_limits(limits=1),
        tqdm(
            total=total,
            initial=total - len(todo),
            unit="point",
            smoothing=0.0,
            disable=None if progress is None else not progress,
        ) as bar,
    ):

        def keep(batch: Sequence[Outcome]) -> None:
            nonlocal failures
            store.put(batch, {o.key: _as_text(todo[o.key]) for o in batch})
            failures += sum(o.status == "failed" for o in batch)
            if failures:
                bar.set_postfix_str(f"{failures} failed", refresh=False)
            bar.update(len(batch))

        function = plan.function if pool.shares_memory else _pickled(plan.function, "function")
        tasks = ((key, function, _pickled(todo[key], "grid")) for key in order if key not in store)
        compute(tasks, pool, keep)


def _pickled(value: Any, name: str) -> bytes:
    import cloudpickle

    try:
        return cloudpickle.dumps(value)
    except Exception as error:
        raise ValueError(f"`{name}` cannot be sent to a worker ({error}).") from error


def _digest(name: str, value: Any) -> str:
    try:
        return digest(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`grid[{name!r}]` cannot be identified: {error}.") from None


def _seed(root: int, row: Mapping[str, str]) -> int:
    """A point's seed, below 2^63, from the root seed and the point's parameters."""
    words = np.frombuffer(bytes.fromhex(digest(dict(row))), dtype=">u4").tolist()
    return int(np.random.SeedSequence([root, *words]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _check_signature(function: Callable[..., Any], parameters: Sequence[Mapping[str, Any]]) -> None:
    """Check names and required arguments before the first point."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some builtins have no signature
    for names in dict.fromkeys(tuple(values) for values in parameters):
        for name in names:
            takes = signature.parameters.get(name)
            if (takes is None or takes.kind in (takes.POSITIONAL_ONLY, takes.VAR_POSITIONAL)) and not any(
                parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()
            ):
                by_name = [each.name for each in signature.parameters.values() if each.kind is not each.POSITIONAL_ONLY]
                known = ", ".join(by_name) or "none by name"
                source = "`seed` needs a parameter" if name == "seed" else "`grid` names the parameter"
                raise ValueError(f"{source} {name!r}, which the function does not take; it takes {known}.")
        try:
            signature.bind(**dict.fromkeys(names))
        except TypeError as error:
            raise ValueError(f"`grid` does not fit the function: {error}.") from None


def _as_text(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={describe(value)}" for name, value in parameters.items())


def _log_stored_points(store: Store, plan: Plan, finished: int) -> None:
    if store.damaged:
        log.warning("%s was damaged: what could not be read is computed again.", store.path)
    others = store.other_code(plan.identity.name, plan.identity.code)
    if others:
        log.warning(
            "%s also holds %d points of %s with other code, versions or fixed arguments; they are not used.",
            store.path,
            others,
            plan.identity.name,
        )
    if finished:
        log.info("%d of %d points were in %s.", finished, len(set(plan.keys)), store.path)


def _summarise(plan: Plan, outcomes: Sequence[Outcome]) -> None:
    failed = [index for index, outcome in enumerate(outcomes) if outcome.status == "failed"]
    if failed:
        first = failed[0]
        log.warning(
            "%d of %d points failed; the first, %s: %s",
            len(failed),
            len(outcomes),
            _as_text(plan.parameters[first]),
            json.loads(outcomes[first].payload)["error"],
        )
