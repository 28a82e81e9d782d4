"""Return codes of compiled loops."""

from __future__ import annotations

COMPLETED, FULL, BUDGET, REFRESH, STEP_FLOOR, NON_FINITE = range(6)
