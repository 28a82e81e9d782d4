"""Why a compiled loop came back."""

from __future__ import annotations

__all__ = ["BUDGET", "COMPLETED", "FULL", "NON_FINITE", "REFRESH", "STEP_FLOOR"]

COMPLETED, FULL, BUDGET, REFRESH, STEP_FLOOR, NON_FINITE = range(6)
