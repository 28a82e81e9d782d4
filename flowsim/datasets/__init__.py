"""Bundled data and seeded generators."""

from flowsim.datasets.generators import sparse_regression
from flowsim.datasets.tables import diabetes

__all__ = ["diabetes", "sparse_regression"]
