"""Data: tables from files (`files`), bundled tables (`tables`) and random problems (`generators`)."""

from flowsim.datasets.files import read_table
from flowsim.datasets.generators import sparse_regression
from flowsim.datasets.tables import diabetes

__all__ = ["diabetes", "read_table", "sparse_regression"]
