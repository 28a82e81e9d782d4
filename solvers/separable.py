r"""Flows driven through a monotone separable map, solved natively.

.. math:: \nu' = b - A\,\beta(z, t), \qquad z = A^\top \nu / n, \qquad
          \beta_i = \sum_k s_{ik} \exp(l_{ik} + a_{ik} z_i - b_{ik} t), \quad s_{ik} a_{ik} \ge 0.

The unknowns are logarithms: the tolerance bounds the absolute error of a z / 2, which is the relative error of the
root of every exponential (a weight, in applications) at every scale. Exponents may start at -10^7.

Or, for L >= 3, beta_i is a product of weights that reaches infinity at finite z:

.. math:: \beta_i = \pm x \prod_{j<L} \sqrt{x^2 + m_{ij}^2}, \qquad
          \pm (T_i^\pm - z_i)\Big|_{\pm = +} = \int_x^\infty \frac{d\xi}{\prod_j \sqrt{\xi^2 + m_{ij}^2}},

and likewise below. Then the unknowns are the distances T - z to the two infinities, from 1e300 down to 1, or to 1e-300
in a unit of 1e300, and the tolerance bounds their relative errors.

Exponentials of up to some hundred coordinates are left to second-derivative multistep formulas of order 3 to 9
(:mod:`flowsim.solvers.multistep`). Products, and more coordinates than that, are integrated by Rodas5P
(:mod:`flowsim.solvers.rodas`) with a step end wherever a coordinate begins to count
(:mod:`flowsim.solvers.separable_kernel`): a one-step method takes others in where it stands. With many coordinates only
some are loaded; a bound on all others, safe by the Cauchy-Schwarz inequality, tells when A has to be passed over again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.arclength import ArcLength
from flowsim.solvers.events import Event, Occurrence, find_events
from flowsim.solvers.separable_run import LoadedSteps, NodeSteps, compiled_reading, run_of
from flowsim.solvers.solution import Status

__all__ = ["SeparableFlow", "SeparableSolution", "integrate_ensemble", "integrate_separable"]

Array = NDArray[np.float64]

#: Terms of the series of a product; with the kernel's bound on its argument they reach rounding.
_TERMS = 16
#: Columns of a LinearOperator formed at once.
_BLOCK = 256
#: Rows of a dense evaluation at once, in entries.
_EVALUATE = 1 << 22


@dataclass(frozen=True, eq=False)
class SeparableFlow:
    """The flow of this module's first equation, with nu(0) = 0.

    Attributes
    ----------
    A : array (r, d), sparse matrix, or LinearOperator
    b : array (r,)
    n : float
        > 0.
    log_coefficient, sign, slope, decay : array (K, d)
        l, s, a, b of the K exponentials of a coordinate; l = -inf for one that is absent.
    column_norms : array (d,), optional
        Of A; computed where not given.
    power : int
        0 for exponentials; L for products, which use `sign` and `slope` (both +1 and -1, K = 2) alone.
    squares : array (L - 1, d)
        m^2 of a product.
    distance : array (2, d)
        T - z of a product at the start, above and below, in the unit of z; infinite where that side cannot be reached.
    log_unit : float
        Logarithm of the unit of z and t of a product, >= 0: distances may span twice the range of floats.
    """

    A: Any
    b: Array
    n: float
    log_coefficient: Array
    sign: Array
    slope: Array
    decay: Array
    column_norms: Array | None = None
    power: int = 0
    squares: Array | None = None
    distance: Array | None = None
    log_unit: float = 0.0

    def __post_init__(self) -> None:
        if (self.sign * self.slope).min(initial=0.0) < 0:
            raise ValueError("`sign` times `slope` must be >= 0: beta must not decrease in z.")

    @cached_property
    def product(self) -> tuple[int, Array, Array, Array]:
        """L, m^2, the series of the inverse product of square roots in 1/x^2, and the distances."""
        if self.power == 0:
            return 0, np.zeros((0, self.d)), np.zeros((0, self.d)), np.zeros((0, self.d))
        if self.squares is None or self.distance is None:
            raise ValueError("`squares` and `distance` must be given for products.")
        series = np.zeros((_TERMS if self.squares.any() else 1, self.d))
        series[0] = 1.0
        for square in self.squares if len(series) > 1 else ():
            # times (1 + square u)^(-1/2)
            factor = np.ones((_TERMS, self.d))
            for k in range(1, _TERMS):
                factor[k] = factor[k - 1] * square * (0.5 - k) / k
            series = np.array([(series[: k + 1] * factor[k::-1]).sum(axis=0) for k in range(_TERMS)])
        return self.power, self.squares, series, self.distance

    @property
    def d(self) -> int:
        return int(self.A.shape[1])

    @property
    def rows(self) -> int:
        return int(self.A.shape[0])

    @property
    def exponential(self) -> tuple[Array, Array, Array, Array]:
        """l, s, a and b."""
        return self.log_coefficient, self.sign, self.slope, self.decay

    def beta(self, z: Array, t: Array) -> Array:
        """Sums of exponentials, (T, d), for z (T, d) and t (T,); infinite where they leave the range of floats."""
        kernel: Any = compiled_reading()
        z, t = np.ascontiguousarray(z, dtype=float), np.ascontiguousarray(t, dtype=float)
        out = np.empty(z.shape)
        kernel.sums(*self.exponential, z, t, out)
        return out

    def columns(self, index: NDArray[np.int64]) -> Array:
        """Columns of A as rows, C order."""
        if isinstance(self.A, np.ndarray):
            return np.ascontiguousarray(self.A[:, index].T)
        if hasattr(self.A, "tocsc"):
            return np.ascontiguousarray(self._by_column[:, index].toarray().T)
        out = np.empty((len(index), self.rows))
        for first in range(0, len(index), _BLOCK):
            part = index[first : first + _BLOCK]
            unit = np.zeros((self.d, len(part)))
            unit[part, np.arange(len(part))] = 1.0
            out[first : first + len(part)] = np.asarray(self.A @ unit).T
        return out

    @cached_property
    def _by_column(self) -> Any:
        return self.A.tocsc()

    @cached_property
    def norms(self) -> Array:
        """Norms of the columns of A."""
        if self.column_norms is not None:
            return self.column_norms
        if isinstance(self.A, np.ndarray):
            return np.sqrt(np.einsum("ij,ij->j", self.A, self.A))
        if hasattr(self.A, "multiply"):
            return np.sqrt(np.asarray(self.A.multiply(self.A).sum(axis=0)).ravel())
        blocks = [np.arange(first, min(first + _BLOCK, self.d)) for first in range(0, self.d, _BLOCK)]
        return np.concatenate([np.linalg.norm(self.columns(block), axis=1) for block in blocks])


@dataclass(frozen=True, eq=False)
class SeparableSolution:
    """The steps taken and a continuous extension over them, as accurate as they are.

    Attributes
    ----------
    flow : SeparableFlow
    t : array (T,)
        0 and the end of every step. Where a jump is shorter than the spacing of floats, ends repeat.
    h : array (T - 1,)
        Lengths of the steps, known better than the differences of `t`.
    status : Status
    message : str
    stats : dict
        steps, rejected, nfev, njev, nlu, passes (over A), seconds.
    events : sequence of Occurrence
        Of the events that were asked for.
    """

    flow: SeparableFlow
    t: Array
    h: Array
    status: Status
    message: str
    stats: dict[str, Any]
    chunks: Sequence[LoadedSteps | NodeSteps] = field(repr=False, default=())
    events: Sequence[Occurrence] = ()

    @cached_property
    def z(self) -> Array:
        """(T, d) at the ends of the steps."""
        return self.at_steps(np.arange(len(self.h)), np.zeros(len(self.h)), with_end=True)

    @property
    def y(self) -> Array:
        """The states, under the name they have in any other solution."""
        return self.z

    def arclength(self, constant: float) -> ArcLength:
        """The integral of ``constant + |d beta/dt|`` along the run."""
        nodes = ArcLength.nodes()
        parts = [chunk.speeds(self.flow.n, nodes) for chunk in self.chunks]
        speed = np.concatenate([np.zeros((0, len(nodes))), *parts])
        return ArcLength.of_samples(self.t, self.h, constant + speed)

    def __call__(self, times: Array) -> Array:
        """z at times (K,) inside the run, shape (K, d)."""
        return self.at_steps(*self.locate(times))

    def locate(self, times: Array) -> tuple[NDArray[np.intp], Array]:
        """The step that holds each time, and the position in it, 0 to 1."""
        times = np.asarray(times, dtype=float)
        if len(self.h) == 0:
            return np.zeros(len(times), dtype=np.intp), np.zeros(len(times))
        kernel: Any = compiled_reading()
        step, theta = np.empty(len(times), dtype=np.intp), np.empty(len(times))
        kernel.locate(self.t, self.h, times, step, theta)
        return step, theta

    def at_steps(self, step: NDArray[np.intp], theta: Array, with_end: bool = False) -> Array:
        """z at positions `theta` of the steps `step`, shape (K, d); with the run's end appended on request."""
        flow = self.flow
        if len(self.h) == 0:
            rest = np.zeros(flow.d) if flow.distance is None else flow.distance.ravel()
            return np.repeat(rest[None], len(step) + with_end, axis=0)
        if with_end:
            step, theta = np.append(step, len(self.h) - 1), np.append(theta, 1.0)
        if len(self.chunks) == 1 and self.chunks[0].loaded is None:
            return self.chunks[0].states(flow, step, theta)[0]
        out = np.empty((len(step), 2 * flow.d if flow.power else flow.d))
        first = np.cumsum([0] + [len(chunk.h) for chunk in self.chunks])
        block = max(1, _EVALUATE // flow.d)
        for number, chunk in enumerate(self.chunks):
            rows = np.flatnonzero((step >= first[number]) & (step < first[number + 1]))
            for begin in range(0, len(rows), block):
                part = rows[begin : begin + block]
                local, position = step[part] - first[number], theta[part]
                inside, nu = chunk.states(flow, local, position)
                if chunk.loaded is None:
                    out[part] = inside
                else:
                    out[part] = np.asarray(flow.A.T @ nu.T).T / flow.n
                    out[np.ix_(part, chunk.loaded)] = inside
        return out


def integrate_separable(
    flow: SeparableFlow,
    t_end: float,
    *,
    tol: float = 1e-6,
    max_steps: int = 200_000,
    progress: Callable[[float], None] | None = None,
    done: Callable[[SeparableSolution], bool] | None = None,
    events: Sequence[Event] = (),
) -> SeparableSolution:
    """Integrate from nu = 0 over [0, t_end].

    Parameters
    ----------
    flow : SeparableFlow
    t_end : float
        > 0, finite.
    tol : float
        Bound on the local error of half of every exponent, absolute; not below a few roundings of the exponents.
    max_steps : int
        Budget of accepted steps.
    progress : callable, optional
        Called with the time reached now and then.
    done : callable (SeparableSolution) -> bool, optional
        Looked at now and then with the steps since it was last asked; True completes the integration there.
    events : sequence of Event, optional
        Looked for on the continuous extension and kept as ``solution.events``; the first occurrence of a terminal
        one ends the run, there, with ``Status.EVENT``.

    Returns
    -------
    SeparableSolution
        Never raises for a failed integration: the status says how it ended.
    """
    terminal = [event for event in events if event.terminal]

    def over(steps: SeparableSolution) -> bool:
        return bool(find_events(steps, terminal)) or (done is not None and done(steps))

    solution = run_of(flow, t_end, tol, max_steps, progress, over if terminal else done)
    if not events:
        return solution
    found = find_events(solution, events)
    last = next((one for one in found if one.event.terminal), None)
    if last is None:
        return replace(solution, events=found)
    # The same steps once more, the last one shorter.
    again = run_of(flow, max(last.t, np.finfo(float).tiny), tol, max_steps)
    kept = [one for one in found if (one.step, one.position) <= (last.step, last.position)]
    status = Status.EVENT if again.status.success else again.status
    return replace(again, events=kept, status=status, message=status.value)


def integrate_ensemble(
    flows: Sequence[SeparableFlow],
    t_end: Sequence[float],
    *,
    tol: float = 1e-6,
    max_steps: int = 200_000,
    workers: int | None = None,
    read: Callable[[SeparableSolution], Any] | None = None,
) -> list[Any]:
    """Integrate many flows side by side: the compiled loop lets other threads run.

    Parameters
    ----------
    flows : sequence of SeparableFlow
    t_end : sequence of float
        One for each.
    tol, max_steps : as in :func:`integrate_separable`
    workers : int, optional
        Threads; the number of processors by default.
    read : callable (SeparableSolution) -> Any, optional
        What to keep of each solution, called on the thread that has it. To keep all steps of all flows, as is done
        without it, takes new memory, and that a fifth of the time.

    Returns
    -------
    list of SeparableSolution, or of what `read` makes of them
    """
    if len(flows) != len(t_end):
        raise ValueError(f"`t_end` must hold one time for each of the {len(flows)} flows; received {len(t_end)}.")

    results: dict[int, Any] = {}
    next_one = count()

    def work() -> None:
        # One task a thread, not one a flow: handing over takes as long as a quarter of a flow.
        while (index := next(next_one)) < len(flows):
            solution = integrate_separable(flows[index], t_end[index], tol=tol, max_steps=max_steps)
            results[index] = solution if read is None else read(solution)

    threads = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        for task in [pool.submit(work) for _ in range(threads)]:
            task.result()
    return [results[index] for index in range(len(flows))]
