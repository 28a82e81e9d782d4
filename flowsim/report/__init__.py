"""A run folder as one HTML page without network access: `folder` reads it, `payload` selects data, `page` writes."""

from flowsim.report.folder import Run, read_runs
from flowsim.report.page import render, write_report

__all__ = ["Run", "read_runs", "render", "write_report"]
