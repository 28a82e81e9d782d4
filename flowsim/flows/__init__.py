"""Continuous time: gradient flows in weight, growth and linear-network coordinates."""
