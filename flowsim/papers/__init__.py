"""Figure-type experiments of the three papers and of what followed, one function each: ``flowsim reproduce``.

Parameters are stated in each experiment's JSON; where a paper does not give its own, they are ours.
"""

from flowsim.papers.experiment import EXPERIMENTS, Check, Experiment, Findings, Report, reproduce

__all__ = ["EXPERIMENTS", "Check", "Experiment", "Findings", "Report", "reproduce"]
