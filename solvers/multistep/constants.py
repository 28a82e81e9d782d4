"""The constants of the method, measured on random families of flows, and the names of its counters."""

from __future__ import annotations

import numpy as np

#: Past values of f in a formula, at most: order 9.
MOST = 7
#: Differences of f that are kept, f among them: enough to judge the next order.
HISTORY = MOST + 3
#: Repeated integrals of each polynomial that the coefficients are made from.
FOLDS = HISTORY + 6

#: The local error is held to the tolerance over this.
CAUTION = 3.0
SAFETY = 0.8
#: The first steps, of low order, err all in one direction, and nothing stiff damps it yet: they, to this part.
FIRST_STEPS, FIRST_PART = 12, 0.3
#: Bonus of a higher order: its prediction is low until it is in use.
HIGHER = 1.05
SHRINK, GROW = 0.2, 2.0
#: Below this error over its bound the order stays, and the next step may be this much longer.
CALM, GROW_CALM = 1e-3, 10.0
QUIET, GROW_QUIET = 1e-8, 1e3
#: Rejections in a row that end a run.
REJECTIONS = 40
#: The first past point is made up, this part of the first step before it.
BEGIN = 1e-3
#: So many equal steps may end a run.
LAST = 3
#: Spacing of history that is missing.
MISSING = 1e300

#: A coordinate is active once its effect on log weights over a step exceeds this part of the tolerance.
NEGLIGIBLE = 0.05
#: Exponentials this many e-foldings below that are listed with the active ones.
MARGIN = 1.0
#: e-foldings above that to which an exponential may grow in the step that activates it, and in any step after.
ENTRY, GROWTH = 1.0, 1.5
#: e-foldings beyond that which are let pass, and times a step is shortened.
UNSEEN, TRIES = 0.01, 20

#: Part of the tolerance to which a step's equations are solved ...
SOLVED = 0.2
#: ... by corrections that shrink by this at least; a matrix that does not is formed anew.
CONTRACTION = 0.2
#: A correction that shrinks by less than this has failed.
SLOW = 0.7
#: What the last part of a correction left is taken to be at most this part of what was left before, of either sign.
MOST_LEFT = 0.5
CORRECTIONS = 30
EVALUATIONS = 8
#: A correction that rounding keeps from the goal serves if it misses so much of itself, or so much, in log weights.
INEXACT_PART, INEXACT_SIZE = 0.5, 1e-4
#: From this evaluation on corrections are taken to be at the level of rounding.
ROUNDING_FROM = 3
#: A prediction further off than this, in log weights, is rejected.
FAR = 0.5
#: The step after a failed Newton iteration, as a part of that.
RETRY = 0.4

#: A step is stiff from this trace of theta G D on: errors of stiff modes are filtered.
STIFF = 1.0
UNFILTERED = 0.1
#: From this on f is noise in stiff modes, unless they are projected, if within this part of the tolerance of rest.
PROJECTED, REST = 10.0, 0.5
#: What a stale matrix may miss of where that is, from coordinates whose W G is below LOOSE; it is renewed for what is
#: within NEAR tolerances.
STALE, LOOSE, NEAR = 0.1, 0.9, 10.0

#: No step is asked to be more accurate than so many roundings of the exponents.
ROUNDINGS = 4.0 * float(np.finfo(np.float64).eps)
#: Up to this size the iteration matrix is inverted; beyond, a factor is less work.
SMALL = 64

#: How linear systems are solved: by the inverse on active coordinates or in the rows of A, or by a factor likewise.
BY_INVERSE, BY_INVERSE_IN_ROWS, BY_COORDINATES, BY_ROWS = range(4)
#: The inverse in the rows errs by so many times its rounding, the stiffness of a step: up to this it serves.
MOST_IN_ROWS = 1e5

#: What a map that is called is asked for: logarithmic sizes of all coordinates, values of the active ones, the part of
#: a step that is not too long, to follow an accepted step, and to take a straight line if what is active is at rest.
LOCATE, EVALUATE, SHORTEN, COMMIT, CROSS = range(5)

#: ``clock``: time, its rounding error, the next step proposed, and the unit of time in which steps are one.
TIME, TIME_LOW, NEXT_STEP, UNIT = range(4)
#: Steps are no longer than this, whatever the unit.
LONGEST = 1e250
#: Less than this is nothing.
NO_FLOAT = 1e-300
#: ``counts``: steps, rejected steps, evaluations of the exponentials, iteration matrices, steps on record, and for how
#: many there is room.
STEPS, REJECTED, EVALUATED, MATRICES, RECORDED, CAPACITY = range(6)

#: The first of all coordinates, typed: functions are compiled once more for a literal.
FIRST = np.int64(0)
