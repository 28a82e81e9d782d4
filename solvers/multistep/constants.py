"""The constants of the method, tuned on random families of flows, and the indices of its counters."""

from __future__ import annotations

import numpy as np

#: Largest number of past values of f in a formula, of order 9.
MOST = 7
#: Number of stored differences of f, including f: enough to estimate the error of the next order.
HISTORY = MOST + 3
#: Repeated integrals of each polynomial from which coefficients are computed.
FOLDS = HISTORY + 6

#: Safety factor: the local error is at most the tolerance over this.
CAUTION = 3.0
SAFETY = 0.8
#: The errors of the first steps, of low order, add up, since no stiff mode damps them yet: their number, and the part
#: of the tolerance allowed.
FIRST_STEPS, FIRST_PART = 12, 0.3
#: Bias towards a higher order, whose predicted step is too small until the order is in use.
HIGHER = 1.05
SHRINK, GROW = 0.2, 2.0
#: Error relative to its bound below which the order is kept, and the growth of the next step allowed then.
CALM, GROW_CALM = 1e-3, 10.0
QUIET, GROW_QUIET = 1e-8, 1e3
#: Successive rejections that end a run.
REJECTIONS = 40
#: The first past point is artificial, before the start by this part of the first step.
BEGIN = 1e-3
#: Number of equal steps in which a run may end.
LAST = 3
#: Spacing of missing history.
MISSING = 1e300

#: A coordinate is active once its effect on log weights over a step exceeds this part of the tolerance.
NEGLIGIBLE = 0.05
#: e-foldings below that level down to which exponentials are listed with the active ones.
MARGIN = 1.0
#: e-foldings above that level to which an exponential may grow in the step that activates it, and in any later step.
ENTRY, GROWTH = 1.0, 1.5
#: Tolerance on those e-foldings, and the number of times a step is shortened.
UNSEEN, TRIES = 0.01, 20

#: Part of the tolerance to which the equations of a step are solved ...
SOLVED = 0.2
#: ... and the contraction rate above which the matrix is renewed.
CONTRACTION = 0.2
#: Contraction rate above which Newton's iteration has failed.
SLOW = 0.7
#: Bound on the contraction factor, of either sign, in the extrapolation of corrections.
MOST_LEFT = 0.5
CORRECTIONS = 30
EVALUATIONS = 8
#: Error of a correction limited by rounding that is accepted: relative to itself, or in log weights.
INEXACT_PART, INEXACT_SIZE = 0.5, 1e-4
#: Evaluation from which on corrections count as limited by rounding.
ROUNDING_FROM = 3
#: Largest correction of a prediction, in log weights.
FAR = 0.5
#: Factor of the step size after a failed Newton iteration.
RETRY = 0.4

#: Trace of theta G D from which on a step is stiff: the error estimate is filtered.
STIFF = 1.0
UNFILTERED = 0.1
#: Trace from which on f is noise in stiff modes, which are projected if within this part of the tolerance of rest.
PROJECTED, REST = 10.0, 0.5
#: Trace from which on stiff modes may be taken for at rest to the end of a run so many times as long as the step.
LONG_AT_REST, FAR_OFF = 1e6, 1e3
#: Error of the quasi-steady state allowed from a stale matrix, by coordinates whose W G is below LOOSE; the matrix is
#: renewed for states within NEAR tolerances.
STALE, LOOSE, NEAR = 0.1, 0.9, 10.0

#: Least tolerance of a step, in rounding errors of the exponents.
ROUNDINGS = 4.0 * float(np.finfo(np.float64).eps)
#: Size up to which the iteration matrix is inverted; beyond it a factorisation is cheaper.
SMALL = 64

#: How linear systems are solved: by the inverse on active coordinates or in the rows of A, or by a factor likewise.
BY_INVERSE, BY_INVERSE_IN_ROWS, BY_COORDINATES, BY_ROWS = range(4)
#: The inverse in the rows errs by so many times its rounding, the stiffness of a step: up to this it serves.
MOST_IN_ROWS = 1e5

#: Tasks of a map that is called: logarithmic sizes of all coordinates, values of the active ones, the admissible part
#: of a step, the update after an accepted step, and a straight line if active coordinates are at rest.
LOCATE, EVALUATE, SHORTEN, COMMIT, CROSS = range(5)

#: Tasks of the function that solves the equations of a step: f and f' of active coordinates at the trial point, of all
#: others; the solution; the filter of errors; the projection of stiff modes; the motion of active coordinates to rest;
#: rounding in f is set to 0.
START, EXTEND, SOLVE, FILTER, PROJECT, TO_REST, DROP_ROUNDING = range(7)

#: ``clock``: time, its rounding error, the proposed next step, and the unit of time of steps.
TIME, TIME_LOW, NEXT_STEP, UNIT = range(4)
#: Largest step, in any unit.
LONGEST = 1e250
#: Up to this squares of steps are floats; over longer ones f' is zero to rounding.
SQUARED = 1e150
#: Numbers below this count as zero.
NO_FLOAT = 1e-300
#: ``counts``: steps, rejected steps, evaluations of the map, iteration matrices, recorded steps, and the capacity of
#: the record.
STEPS, REJECTED, EVALUATED, MATRICES, RECORDED, CAPACITY = range(6)

#: The first coordinate, and numbers of times, as typed integers: for literals functions would be compiled again.
FIRST, ONCE, TWICE = np.int64(0), np.int64(1), np.int64(2)
