"""Grids, executors and a durable store; knows nothing of flows."""
