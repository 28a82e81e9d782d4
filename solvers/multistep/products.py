"""Products with the Gram matrix: by its rows, or by the rows of A."""

from __future__ import annotations

from flowsim.solvers.compilation import bare, padded
from flowsim.solvers.multistep.constants import BY_INVERSE_IN_ROWS, BY_ROWS, FIRST
from flowsim.solvers.multistep.workspace import Active, Loss, Newton, Problem, Sizes
from flowsim.solvers.simd import EIGHT, add_up, constant, less, load, magnitude, store, store_both, two_sums, view


@bare(forceinline=True)
def _subtract(count, S, stride, x, m, b, base, out):
    """`count` vectors of :func:`subtract_rows`, a constant from 1 to 4."""
    even, odd = two_sums(count, base, b)
    for s in range(0, m - 1, 2):
        a = s * stride + b
        even = less(even, x[s], S, a)
        odd = less(odd, x[s + 1], S, a + stride)
    if m % 2:
        odd = less(odd, x[m - 1], S, (m - 1) * stride + b)
    store_both(out, b, even, odd)


@bare()
def subtract_rows(S, stride, x, m, begin, end, base, out):
    """``out = base - sum_s x_s S_s`` from `begin` to `end`, by as many sums as hide the latency."""
    b = begin
    while b + 4 * EIGHT <= end:
        _subtract(4, S, stride, x, m, b, base, out)
        b += 4 * EIGHT
    left = end - b
    if left == 3 * EIGHT:
        _subtract(3, S, stride, x, m, b, base, out)
    elif left == 2 * EIGHT:
        _subtract(2, S, stride, x, m, b, base, out)
    elif left == EIGHT:
        _subtract(1, S, stride, x, m, b, base, out)


@bare(forceinline=True)
def row_sums(ws, q, x):
    """A row of ``A x / sqrt(n)``, and the sum of the absolute values of its terms."""
    stride, design, total = view(Sizes, ws).padded, view(Problem, ws).design, constant(0.0)
    terms = total
    for s in range(0, view(Active, ws).padded, EIGHT):
        term = load(design, q * stride + s) * load(x, s)
        total, terms = total + term, terms + magnitude(term)
    return add_up(total), add_up(terms)


@bare()
def _subtract_by_design(ws, x, begin, end, base, out):
    """``out = base - A^T A x / n``."""
    sizes, problem, in_rows = view(Sizes, ws), view(Problem, ws), view(Problem, ws).row_work
    for q in range(sizes.rows):
        in_rows[q] = row_sums(ws, q, x)[0]
    subtract_rows(problem.design, sizes.padded, in_rows, sizes.rows, begin, end, base, out)


@bare(forceinline=True)
def into_rows(ws, x, out):
    """``out = A x / sqrt(n)``, by the columns of A."""
    problem, padded_rows = view(Problem, ws), padded(view(Sizes, ws).rows)
    subtract_rows(problem.columns, padded_rows, x, view(Active, ws).n, FIRST, padded_rows, view(Newton, ws).zero, out)


@bare()
def _subtract_curved(ws, x, begin, end, base, out):
    """``out = base - A^T W A x / n`` for a loss of curvature W; its rows ``W A x / sqrt(n)`` stay in the workspace."""
    sizes, problem, curvature = view(Sizes, ws), view(Problem, ws), view(Loss, ws).curvature
    in_rows, padded_rows = problem.row_work, padded(sizes.rows)
    into_rows(ws, x, in_rows)
    for q in range(0, padded_rows, EIGHT):
        store(in_rows, q, load(curvature, q) * load(in_rows, q))
    subtract_rows(problem.design, sizes.padded, in_rows, sizes.rows, begin, end, base, out)


@bare()
def subtract_gram(ws, x, begin, end, base, out):
    """``out = base - G x`` from `begin` to `end` for x on the active coordinates; G is the Hessian of the loss."""
    active = view(Active, ws)
    if view(Sizes, ws).loss != 0 or active.solver == BY_INVERSE_IN_ROWS:
        _subtract_curved(ws, x, begin, end, base, out)
    elif active.solver == BY_ROWS or view(Sizes, ws).by_design != 0:
        _subtract_by_design(ws, x, begin, end, base, out)
    else:
        subtract_rows(view(Problem, ws).gram, view(Sizes, ws).padded, x, active.n, begin, end, base, out)
