"""The workspace of the compiled loop: one table defines its layout and the named tuples of pointers.

All arrays are rows of ``padded`` floats, whole vectors aligned to cache lines, in one buffer owned by Python.
Coordinates are permuted by the loop, active ones first; arrays marked as permuted follow that order.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.compilation import bare
from flowsim.solvers.multistep.constants import FOLDS, HISTORY, SMALL
from flowsim.solvers.simd import EIGHT, at_address


class Workspace(NamedTuple):
    """Pointers to a buffer of floats and to a table of integers, from which :func:`view` gets the tuples below."""

    buffer: Any
    table: Any


class Sizes(NamedTuple):
    """Coordinates, the same padded to whole vectors, rows of A, exponentials of a coordinate; strides of matrices."""

    width: Any
    padded: Any
    rows: Any
    terms: Any
    inverse: Any
    factor: Any
    #: permuted rows of the workspace
    permuted: Any
    #: address of the factored solver, 0 where it is not needed
    factored: Any
    #: address of the derivatives of a loss, 0 for squares
    loss: Any
    #: address of a map that is called, 0 for exponentials, and of its two buffers
    mapping: Any
    map_integers: Any
    map_numbers: Any
    #: address of the bound on coordinates that are not loaded, 0 if all are, and of its two buffers
    screen: Any
    screen_integers: Any
    screen_numbers: Any
    #: 1 where the Gram matrix is stored; 1 where products with the Hessian go by the rows of A
    has_gram: Any
    by_design: Any
    #: address of Newton's method in graded rows, 0 where it is not needed, and of its two buffers
    graded: Any
    graded_integers: Any
    graded_numbers: Any
    #: 1 where the columns of A are stored
    has_columns: Any
    #: address of the function that solves the equations of a step
    newton: Any


class Active(NamedTuple):
    """Active coordinates, the same padded, layers of their exponentials, and the kind of linear solver."""

    n: Any
    padded: Any
    layers: Any
    solver: Any


class State(NamedTuple):
    """Between calls of the loop: past points of the formula, steps since the start, whether there is a matrix."""

    order: Any
    depth: Any
    has_matrix: Any


class Problem(NamedTuple):
    """``G = A^T A / n`` and its diagonal, ``A / sqrt(n)``, ``c = A^T b / n``, ``b / sqrt(n)``, a vector of the rows, n.

    For a loss other than squares, and of few rows, ``-A^T / sqrt(n)`` too, by rows that are the columns of A: the
    compiled products subtract, and with the sign changed they add.

    After n: the sum of ``gain_s G_ss |beta_s|`` at the last point, 1 if f is evaluated from residuals in the rows,
    and then the largest residual relative to its terms.
    """

    gram: Any
    design: Any
    drive: Any
    diagonal: Any
    target: Any
    row_work: Any
    count: Any
    columns: Any


class Loss(NamedTuple):
    """By rows: predictions, targets, sample weights, ``w loss' / sqrt(n)`` and ``w loss''``, offsets of predictions.

    And two numbers: the logarithm of the largest curvature at the last point, 0 for squares, and the least reach.
    """

    prediction: Any
    target: Any
    weight: Any
    slope: Any
    curvature: Any
    offset: Any
    log_curvature: Any


class Exponentials(NamedTuple):
    """l, s, a, b of every exponential, (terms, padded); l = -inf for one that is absent."""

    log_coefficient: Any
    sign: Any
    slope: Any
    decay: Any


class Scales(NamedTuple):
    """For every coordinate: log weights per z, and the exponent, plus ln h, at which it is active."""

    gain: Any
    level: Any


class History(NamedTuple):
    """At the last point: z and its rounding error, f', modified divided differences of f, exponents, past spacings."""

    z: Any
    z_low: Any
    df: Any
    f: Any
    exponents: Any
    spans: Any


class Formula(NamedTuple):
    """Coefficients on the present spacing: see :func:`flowsim.solvers.multistep.formulas.coefficients`."""

    inverse_new: Any
    inverse_old: Any
    ratio: Any
    end_slope: Any
    integral: Any
    #: the trial step, and its admissible part
    step: Any
    part: Any
    #: weights of f and -f' in the step's equation, theta, the allowed error; the stiffness of the step
    equation: Any


class Trial(NamedTuple):
    """The new point, as increments from the last z: known part and guess, f and f' predicted, and solved."""

    known: Any
    guess: Any
    f_predicted: Any
    df_predicted: Any
    exponents: Any
    f: Any
    df: Any
    residual: Any


class Terms(NamedTuple):
    """The listed exponentials of active coordinates in layers; the exponent from which on others must be listed."""

    exponents: Any
    unlisted: Any
    sign: Any
    slope: Any
    decay: Any


class Values(NamedTuple):
    """beta of active coordinates, its derivatives in z and t, d beta/dt along f and the derivative of that in z."""

    beta: Any
    beta_z: Any
    beta_t: Any
    beta_zz: Any
    beta_zt: Any
    velocity: Any
    velocity_z: Any


class Newton(NamedTuple):
    """The correction, its effect on f and f', the residual of the equation, work vectors, and zeros.

    And the residual before the last correction.
    """

    delta: Any
    change_f: Any
    change_df: Any
    rest: Any
    gain: Any
    work: Any
    zero: Any
    before: Any


class Matrix(NamedTuple):
    """The iteration matrix ``I + G W``: W, the bound on its effect on single coordinates, and its solver."""

    inverse: Any
    factor: Any
    pivots: Any
    weight: Any
    reach: Any
    root: Any
    rows: Any
    solution: Any
    work: Any
    second: Any
    #: curvatures of the loss when the matrix was computed
    curvature: Any
    total: Any


class Index(NamedTuple):
    """The permutation of coordinates, its inverse, and the exponential of each listed term."""

    coordinate: Any
    place: Any
    term: Any


#: Permuted arrays, in the order of the buffer: they are first, and the Gram matrix before them.
_PERMUTED = (
    "gram",
    "design",
    "drive",
    "diagonal",
    "log_coefficient",
    "exponential_sign",
    "exponential_slope",
    "exponential_decay",
    "trial_exponents",
    "exponents",
    "z",
    "z_low",
    "df",
    "level",
    "known",
    "guess",
    "f_predicted",
    "df_predicted",
    "gain",
    "f",
)


def _table(
    w: int, K: int, r: int, inverse: int, factor: int, has_gram: bool = True, has_columns: bool = False
) -> dict[type, dict[str, int]]:
    """Sizes of all fields of all tuples, for w coordinates of K exponentials and r rows."""
    stride, row_stride, points = _padded(w), _padded(r), HISTORY + 2

    def of_size(size: int, *names: str) -> dict[str, int]:
        return dict.fromkeys(names, size)

    return {
        Problem: {
            "gram": w * stride if has_gram else 0,
            "design": r * stride,
            **of_size(stride, "drive", "diagonal"),
            **of_size(row_stride, "row_target", "row_work"),
            "count": 4,
            "columns": w * row_stride if has_columns else 0,
        },
        Loss: of_size(row_stride, "prediction", "target", "sample_weight", "loss_slope", "loss_curvature", "offset")
        | {"log_curvature": 2},
        Exponentials: of_size(
            K * stride, "log_coefficient", "exponential_sign", "exponential_slope", "exponential_decay"
        ),
        Scales: of_size(stride, "gain", "level"),
        History: of_size(stride, "z", "z_low", "df")
        | {"f": HISTORY * stride, "exponents": K * stride, "spans": points},
        Formula: of_size(points, "inverse_new", "inverse_old", "ratio", "end_slope")
        | {"integral": FOLDS * points, "step": 1, "part": 1, "equation": 5},
        Trial: of_size(stride, "known", "guess", "f_predicted", "df_predicted")
        | {"trial_exponents": K * stride}
        | of_size(stride, "f_new", "df_new", "residual"),
        Terms: of_size(K * stride, "listed", "unlisted", "sign", "slope", "decay"),
        Values: of_size(stride, "beta", "beta_z", "beta_t", "beta_zz", "beta_zt", "velocity", "velocity_z"),
        Newton: of_size(stride, "delta", "change_f", "change_df", "rest", "newton_gain", "newton_work")
        | {"zero": max(stride, row_stride), "before": stride},
        Matrix: {"inverse": inverse**2, "factor": factor**2, "pivots": factor}
        | of_size(stride, "weight", "reach", "root")
        | of_size(row_stride, "rows", "solution")
        | of_size(stride, "work", "second")
        | of_size(row_stride, "kept_curvature", "row_total"),
    }


def _padded(size: int) -> int:
    return -(-size // EIGHT) * EIGHT


#: The tuples of the table, in its order.
_NUMBERS = Sizes, Active, State
_FLOATS = Problem, Loss, Exponentials, Scales, History, Formula, Trial, Terms, Values, Newton, Matrix
_TABLE = 0
_kind: Any
for _kind in (*_NUMBERS, *_FLOATS, Index):
    _kind.PLACE = _TABLE
    _kind.HOLDS = "floats" if _kind in _FLOATS else "numbers"
    _TABLE += len(_kind._fields)
Sizes.HOLDS, Index.HOLDS = "constants", "indices"  # type: ignore[attr-defined]


@cache
def layout(
    w: int, K: int, r: int, loss: int = 0, factored: int = 0, has_gram: bool = True, newton: int = 0
) -> tuple[NDArray[np.int64], int]:
    """The initial table for w coordinates of K exponentials, r rows and a loss, and the length of its buffer.

    `factored` is the address of the factored solver, for more than SMALL coordinates; `newton` that of the solution of
    a step.
    """
    stride, row_stride = _padded(w), _padded(r)
    # For more coordinates than this the work is done in the rows of A.
    narrow = min(stride, max(SMALL, 2 * row_stride))
    by_rows = w > max(SMALL, 2 * r)
    inverse, factor = min(stride, SMALL), 0 if w <= SMALL else max(narrow, row_stride) if by_rows else narrow
    has_columns = loss != 0 or 2 * r < min(w, SMALL)
    parts = _table(w, K, r, inverse, factor, has_gram, has_columns).values()
    fields = {name: size for part in parts for name, size in part.items()}
    places, floats = {}, 0
    for name in (*_PERMUTED, *(name for name in fields if name not in _PERMUTED)):
        places[name] = floats
        floats += _padded(fields[name])
    permuted = sum(fields[name] for name in _PERMUTED) // stride
    table = np.zeros(_TABLE + (2 + K) * stride, dtype=np.int64)
    sizes = {
        "width": w,
        "padded": stride,
        "rows": r,
        "terms": K,
        "inverse": inverse,
        "factor": factor,
        "permuted": permuted,
        "factored": factored,
        "loss": loss,
        "has_gram": has_gram,
        "by_design": loss != 0 or not has_gram,
        "has_columns": has_columns,
        "newton": newton,
    }
    table[: len(Sizes._fields)] = [sizes.get(name, 0) for name in Sizes._fields]
    first = Problem.PLACE  # type: ignore[attr-defined]
    table[first:_TABLE] = [*(places[name] for name in fields), *range(_TABLE, _TABLE + 3 * stride, stride)]
    return table, floats


@bare()
def in_memory(integers, numbers):
    """The workspace of a tuple whose two buffers are at these addresses."""
    return Workspace(at_address(numbers, 0, 1.0), at_address(integers, 0, 0))
