"""A run folder as one HTML page that needs no network."""

from flowsim.report.folder import Run, read_runs
from flowsim.report.page import render, write_report

__all__ = ["Run", "read_runs", "render", "write_report"]
