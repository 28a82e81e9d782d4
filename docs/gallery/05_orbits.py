"""Saddles joined by their orbits, in arc length."""

import flowsim as fs

fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), fs.datasets.diabetes()).plot(clock="arclength")
