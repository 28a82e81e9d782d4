"""Flow against limit, flow against descent, references, certificates."""
