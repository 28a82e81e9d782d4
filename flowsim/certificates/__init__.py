"""The theorems of the papers, one function each, tested on a user's own data.

Read `certify` (the public function), `certificate` (evidence and verdict), `registry` (the decorator `theorem`) and
`setting` (runs shared by theorems). Theorems: `saddles`, `ends`, `curves` (vanishing initialisation; `resolution` says
what finite alpha resolves), `noise`, `sharpness`, `shrinkage` (weight noise), `linear_networks`, `linear_limits`,
`decay`, `any_loss` and `separable_data`; `minimum` is an independent minimiser.
"""

# In the order of the papers: importing a module registers its theorems.
from flowsim.certificates import linear_networks, linear_limits, noise, sharpness, shrinkage, saddles, ends  # isort: skip
from flowsim.certificates import curves, decay, any_loss, separable_data  # isort: skip
from flowsim.certificates.certificate import Certificate
from flowsim.certificates.certify import Certificates, certify
from flowsim.certificates.registry import THEOREMS, Theorem
from flowsim.certificates.setting import Setting

__all__ = [
    "THEOREMS",
    "Certificate",
    "Certificates",
    "Setting",
    "Theorem",
    "any_loss",
    "certify",
    "curves",
    "decay",
    "ends",
    "linear_limits",
    "linear_networks",
    "noise",
    "saddles",
    "separable_data",
    "sharpness",
    "shrinkage",
]
