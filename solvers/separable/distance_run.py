"""Integration of coordinates that blow up at finite z: distances beside the workspace of the compiled loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.multistep.constants import LONGEST, NEXT_STEP, UNIT
from flowsim.solvers.separable.distance_steps import DistanceSteps, DistanceTables
from flowsim.solvers.separable.multistep_run import FromNodes


class Distances(FromNodes):
    """A run in the distances of all coordinates from infinity (:mod:`flowsim.solvers.multistep.distance_map`)."""

    def begin(self) -> None:
        from flowsim.solvers.multistep.distance_map import ROUNDINGS, address
        from flowsim.solvers.multistep.workspace import Scales, Sizes

        flow = self.flow
        self.width, self.passes = flow.d, 1
        ones, zeros = np.ones((1, flow.d)), np.zeros((1, flow.d))
        self.lay_out(*self.rows(), (zeros, ones, ones, zeros))
        unit, power = math.exp(flow.log_unit), flow.power
        self.tables = DistanceTables(flow, self.tol, float(self.work.floats(Scales, "level", flow.d).min()))
        with np.errstate(over="ignore", divide="ignore"):
            near = np.maximum(np.abs(self.tables.distance.min(axis=0)) * unit, np.finfo(float).tiny)
            gain = 0.5 * power * np.maximum(1.0 / ((power - 2.0) * near), 1.0)
            gain = np.abs(flow.slope).max(axis=0) * np.minimum(gain, self.tol / (ROUNDINGS * near))
        self.work.floats(Scales, "gain", flow.d)[:] = gain
        integers, numbers = self.tables.addresses
        self.work.write(Sizes, mapping=address(), map_integers=integers, map_numbers=numbers)
        self.clock[NEXT_STEP], self.clock[UNIT] = min(self.t_end, LONGEST / unit) * unit, unit

    def before_steps(self, records: int) -> None:
        self.record = np.empty((records + 1, 2, self.flow.d))
        self.tables.record(self.record)

    def steps(self, t: Array, h: Array, order: Array, nodes: Array) -> Any:
        return DistanceSteps(t, h, order, self.record[: len(t)], nodes[1], nodes[2], self.tables)
