"""From a formula to everything else: moments, field, invariants, thresholds, kernels."""

from flowsim.symbolic.kernels import Kernels, kernels
from flowsim.symbolic.origin import order_at_origin
from flowsim.symbolic.thresholds import thresholds

__all__ = ["Kernels", "kernels", "order_at_origin", "thresholds"]
