"""Studies: flows against their limit, descents against flows, reference solutions, laws of linear networks.

Each file is one study: `limit_study` and `jumps` (flow and limit), `compare`, `halved_steps`, `step_sizes` and `edge`
(descent), `references`, `potential` and `lasso_link` (l1, l2, entropy and Lasso solutions), `separation` (margins),
`linear_ranks`, `linear_rates` and `width_law` (two-layer linear networks).
"""

from flowsim.problem.margins import MaxMargin, is_separable, max_margin_l1, max_margin_l2
from flowsim.studies.compare import Comparison, Comparisons, EnsembleComparison, compare
from flowsim.studies.edge import DescentLimit, EdgeRun, EdgeStudy, descent_limit, edge_of_stability
from flowsim.studies.halved_steps import HalvedSteps, compare_halved_steps
from flowsim.studies.jumps import jump_table, measured_jump_times, one_sided, plateau_times
from flowsim.studies.lasso_link import LassoLink, lasso_link
from flowsim.studies.limit_study import LimitStudy, Rate, limit_study
from flowsim.studies.linear_ranks import RankPlateaus, activation_times, rank_plateaus
from flowsim.studies.linear_rates import (
    InvariantSetCertificate,
    RateBound,
    RateCertificate,
    certify_invariant_set,
    certify_rate,
    rate_bound,
)
from flowsim.studies.potential import min_entropy
from flowsim.studies.references import MinL1, RecoveryScores, min_l1, min_l2, recovery_scores, weighted_lasso
from flowsim.studies.separation import NuclearSeparation, Separation, nuclear_separation, separation
from flowsim.studies.step_sizes import first_move, tenth_of_stable
from flowsim.studies.width_law import WidthLaw, width_law

__all__ = [
    "Comparison",
    "Comparisons",
    "DescentLimit",
    "EdgeRun",
    "EdgeStudy",
    "EnsembleComparison",
    "HalvedSteps",
    "InvariantSetCertificate",
    "LassoLink",
    "LimitStudy",
    "MaxMargin",
    "MinL1",
    "NuclearSeparation",
    "RankPlateaus",
    "Rate",
    "RateBound",
    "RateCertificate",
    "RecoveryScores",
    "Separation",
    "WidthLaw",
    "activation_times",
    "certify_invariant_set",
    "certify_rate",
    "compare",
    "compare_halved_steps",
    "descent_limit",
    "edge_of_stability",
    "first_move",
    "is_separable",
    "jump_table",
    "lasso_link",
    "limit_study",
    "max_margin_l1",
    "max_margin_l2",
    "measured_jump_times",
    "min_entropy",
    "min_l1",
    "min_l2",
    "nuclear_separation",
    "one_sided",
    "plateau_times",
    "rank_plateaus",
    "rate_bound",
    "recovery_scores",
    "separation",
    "tenth_of_stable",
    "weighted_lasso",
    "width_law",
]
