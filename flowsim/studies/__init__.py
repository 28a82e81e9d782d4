"""Flow against limit, flow against descent, references, certificates."""

from flowsim.studies.compare import Comparison, Comparisons, EnsembleComparison, compare
from flowsim.studies.jumps import measured_jump_times, plateau_times
from flowsim.studies.modified import modified_flow
from flowsim.studies.references import (
    MinL1,
    RecoveryScores,
    min_entropy,
    min_l1,
    min_l2,
    recovery_scores,
    weighted_lasso,
)

__all__ = [
    "Comparison",
    "Comparisons",
    "EnsembleComparison",
    "MinL1",
    "RecoveryScores",
    "compare",
    "measured_jump_times",
    "min_entropy",
    "min_l1",
    "min_l2",
    "modified_flow",
    "plateau_times",
    "recovery_scores",
    "weighted_lasso",
]
