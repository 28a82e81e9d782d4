"""Side-by-side measurements: the same work, equal error, one run. ``python -m benchmarks --help``."""
