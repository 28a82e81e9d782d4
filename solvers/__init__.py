"""Integrators for stiff initial-value problems.

What this package does not contain: learning, losses, networks. It imports nothing from the rest of
flowsim, and a test that reads its imports keeps it so.
"""
