"""Min, Tarmoun, Vidal & Mallada, arXiv 2105.06351: two-layer linear networks."""

from __future__ import annotations

__all__: list[str] = []
