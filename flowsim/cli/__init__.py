"""Command line: no numerics."""
