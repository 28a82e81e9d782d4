"""Continuous time: gradient flows in weight, growth and linear-network coordinates."""

from flowsim.flows.gradient_flow import gradient_flow

__all__ = ["gradient_flow"]
