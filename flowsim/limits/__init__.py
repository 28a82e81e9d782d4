"""The limit of vanishing initialisation: the saddle-to-saddle process, its paths and heteroclinic orbits.

Read `process` (the public function and the statement), `diagonal` (one step from saddle to saddle), `dual_bounds`
(thresholds and penalties of a network), `duals` with `hits` and `columns` (the next breakpoint), `convex` and
`selection` (minimisers on cones). `staircase`, `saddle_list` and `path` are the result, `orbits` its jumps as curves;
`start_state` continues a path, `joint` lets noise vanish with the scale, `rational` and `exactly` compute in
fractions. `linear_*` is the process of U V^T: `linear_networks`, `linear_process`, `linear_blocks`, `linear_path`,
`linear_orbits`, and its variants for other losses, measurements and one-sided noise.
"""

from flowsim.limits.linear_path import LinearSaddlePath
from flowsim.limits.path import SaddlePath, SupportChange
from flowsim.limits.process import saddle_to_saddle
from flowsim.limits.rational import ExactPath
from flowsim.limits.start_state import StartState

__all__ = ["ExactPath", "LinearSaddlePath", "SaddlePath", "StartState", "SupportChange", "saddle_to_saddle"]
