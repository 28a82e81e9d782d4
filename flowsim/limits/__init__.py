"""Vanishing initialisation: the saddle-to-saddle process and its orbits."""
