"""Side-by-side measurements: the same work, equal error, one run. ``python -m benchmarks --help``."""

import os

# Compiled code alone is timed; before flowsim is imported. First uses are measured in processes without it.
os.environ["FLOWSIM_INTERPRET"] = "0"
