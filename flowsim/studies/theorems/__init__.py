"""The theorems of the three papers, one function each; :func:`flowsim.certify` runs them."""

from flowsim.studies.theorems import linear, noise, saddles
from flowsim.studies.theorems.registry import THEOREMS, Certificate, Theorem
from flowsim.studies.theorems.setting import Setting

__all__ = ["THEOREMS", "Certificate", "Setting", "Theorem", "linear", "noise", "saddles"]
