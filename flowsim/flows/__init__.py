"""Gradient flows: the coordinates in which a network is integrated exactly, and one driver for all of them.

Read `gradient_flow` (the public function), `driver` (integrate, read, return a trajectory) and `coordinates` (the base
class of all choices of coordinates: what the driver asks of them). `diagonal_flow` chooses among `growth`, `dual`,
`shrinking`, and, integrated in the weights (`kernel_coordinates`), `weights` and `chambers`; `frames` is the flow of
linear networks. `dense` reads a run on any clock, `estimate` measures its error, `event_location` locates events,
`loss_clock` with `loss_growth` and `loss_frames` is the clock ln(1/L), `scaled` takes powers of two out of the data.
`modified` and `stochastic` are the flows that descent with a finite step, and SGD, follow.
"""

from flowsim.flows.gradient_flow import gradient_flow
from flowsim.flows.modified import modified_flow
from flowsim.flows.stochastic import StochasticFlow, stochastic_flow

__all__ = ["StochasticFlow", "gradient_flow", "modified_flow", "stochastic_flow"]
