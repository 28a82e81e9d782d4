"""From a formula to everything else: moments, field, invariants, thresholds, kernels."""
