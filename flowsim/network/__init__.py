"""Networks: formulas, weight noise, weight decay, starts and the scale of initialisation.

Read `networks` (the two classes), `formula` (parser), `noise`, `decay`, `scale` and `start`; `quadratic` recognises the
formulas with growth in closed form. Linear networks: `linear_algebra` (loss and noise in formulas), `linear_start` and
`compression` (the width reduced to the rank of the start).
"""

from flowsim.network.decay import Decay, DecaySchedule, check_decay, decay_of
from flowsim.network.formula import FUNCTIONS, Formula
from flowsim.network.linear_start import linear_start
from flowsim.network.networks import DiagonalNetwork, GivenWeights, LinearNetwork
from flowsim.network.noise import (
    NAMED_NOISES,
    GaussianNoise,
    LaplaceNoise,
    MomentNoise,
    Noise,
    RademacherNoise,
    UniformNoise,
)
from flowsim.network.quadratic import quadratic_form
from flowsim.network.scale import Alpha, InitialScale
from flowsim.network.start import Logs, Start, read_start, resolve_alpha

__all__ = [
    "FUNCTIONS",
    "NAMED_NOISES",
    "Alpha",
    "Decay",
    "DecaySchedule",
    "DiagonalNetwork",
    "Formula",
    "GaussianNoise",
    "GivenWeights",
    "InitialScale",
    "LaplaceNoise",
    "LinearNetwork",
    "Logs",
    "MomentNoise",
    "Noise",
    "RademacherNoise",
    "Start",
    "UniformNoise",
    "check_decay",
    "decay_of",
    "linear_start",
    "quadratic_form",
    "read_start",
    "resolve_alpha",
]
