"""Flow against limit, flow against descent, references, certificates."""

from flowsim.studies.certify import Certificates, certify
from flowsim.studies.compare import Comparison, Comparisons, EnsembleComparison, compare
from flowsim.studies.jumps import measured_jump_times, plateau_times
from flowsim.studies.lasso_link import LassoLink, lasso_link
from flowsim.studies.limit_study import LimitStudy, Rate, limit_study
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
    "Certificates",
    "Comparison",
    "Comparisons",
    "EnsembleComparison",
    "LassoLink",
    "LimitStudy",
    "MinL1",
    "Rate",
    "RecoveryScores",
    "certify",
    "compare",
    "lasso_link",
    "limit_study",
    "measured_jump_times",
    "min_entropy",
    "min_l1",
    "min_l2",
    "modified_flow",
    "plateau_times",
    "recovery_scores",
    "weighted_lasso",
]
