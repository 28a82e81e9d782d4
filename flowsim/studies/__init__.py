"""Flow against limit, flow against descent, references, certificates."""

from flowsim.studies.compare import Comparison, Comparisons, EnsembleComparison, compare
from flowsim.studies.jumps import measured_jump_times, plateau_times
from flowsim.studies.modified import modified_flow

__all__ = [
    "Comparison",
    "Comparisons",
    "EnsembleComparison",
    "compare",
    "measured_jump_times",
    "modified_flow",
    "plateau_times",
]
