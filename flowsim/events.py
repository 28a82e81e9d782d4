"""Public names of events; implemented in :mod:`flowsim.results.events`."""

from flowsim.results.events import Event, Events, Occurrence, crosses, loss_reaches, plateau_begins, plateau_ends

__all__ = ["Event", "Events", "Occurrence", "crosses", "loss_reaches", "plateau_begins", "plateau_ends"]


def __dir__() -> list[str]:
    return sorted(__all__)
