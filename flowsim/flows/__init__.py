"""Continuous time: gradient flows in weight, growth and linear-network coordinates."""

from flowsim.flows.gradient_flow import gradient_flow
from flowsim.flows.modified import modified_flow
from flowsim.flows.stochastic import StochasticFlow, stochastic_flow

__all__ = ["StochasticFlow", "gradient_flow", "modified_flow", "stochastic_flow"]
