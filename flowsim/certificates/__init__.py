"""The theorems of the papers, one function each, certified on a user's own data."""

from flowsim.certificates import linear_networks, noise, saddles
from flowsim.certificates.certificate import Certificate
from flowsim.certificates.certify import Certificates, certify
from flowsim.certificates.registry import THEOREMS, Theorem
from flowsim.certificates.setting import Setting

__all__ = [
    "THEOREMS", "Certificate", "Certificates", "Setting", "Theorem", "certify", "linear_networks", "noise", "saddles",
]  # fmt: skip
