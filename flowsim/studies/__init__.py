"""Flow against limit, flow against descent, references, certificates."""

from flowsim.studies.jumps import measured_jump_times, plateau_times

__all__ = ["measured_jump_times", "plateau_times"]
