"""The theorems of the papers, one function each, certified on a user's own data."""

# In the order of the papers: importing a module enters its theorems.
from flowsim.certificates import linear_networks, linear_limits, noise, sharpness, shrinkage, saddles, ends  # isort: skip
from flowsim.certificates import curves, decay, any_loss, separable_data  # isort: skip
from flowsim.certificates.certificate import Certificate
from flowsim.certificates.certify import Certificates, certify
from flowsim.certificates.registry import THEOREMS, Theorem
from flowsim.certificates.setting import Setting

__all__ = [
    "THEOREMS", "Certificate", "Certificates", "Setting", "Theorem", "any_loss", "certify", "curves", "decay", "ends",
    "linear_limits", "linear_networks", "noise", "saddles", "separable_data", "sharpness", "shrinkage",
]  # fmt: skip
