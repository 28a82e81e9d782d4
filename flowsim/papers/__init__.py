"""Experiments of the three papers and of follow-ups, one function per figure, for ``flowsim reproduce``.

Read `experiment` (measure, draw, check, write); each other module is one paper. Parameters are stated in each
experiment's JSON; where a paper does not give its own, they are chosen here.
"""

from flowsim.papers.experiment import EXPERIMENTS, Check, Experiment, Findings, Report, reproduce

__all__ = ["EXPERIMENTS", "Check", "Experiment", "Findings", "Report", "reproduce"]
