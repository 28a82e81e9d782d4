"""Noise on one factor alone: what has grown never rests, and what waits must be as right beside it as anywhere.

Data that decouple, of which each part is two equations, ``u' = g v - a u, v' = g u - b v``, ``g = s - u v``: linear in
closed form while u v is below rounding, then integrated by itself to twelve digits.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import flowsim as fs

VALUES = (1.0, 0.4)
ETA = 0.3
#: Logarithm of the size up to which a part is linear to rounding.
_LINEAR = -22.0


def part(value: float, a: float, b: float, log_alpha: float, times: np.ndarray) -> np.ndarray:
    """u v at times, from u = v = alpha."""
    rates, vectors = np.linalg.eigh(np.array([[-a, value], [value, -b]]))
    along = vectors.T @ np.ones(2)
    t0 = (_LINEAR - log_alpha - np.log(abs(along[1]))) / rates[1]
    y0 = vectors @ (along * np.exp(rates * t0 + log_alpha))

    def field(_: float, y: np.ndarray) -> list[float]:
        g = value - y[0] * y[1]
        return [g * y[1] - a * y[0], g * y[0] - b * y[1]]

    later = times[times > t0]
    solution = solve_ivp(field, (t0, times[-1]), y0, "DOP853", t_eval=later, rtol=1e-12, atol=1e-20)
    return np.concatenate([np.zeros(len(times) - len(later)), solution.y[0] * solution.y[1]])


@pytest.mark.parametrize(("alpha", "factor"), [("1e-60", "V"), pytest.param("1e-200", "U", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_jumps_and_the_drift_after_them_are_right_at_and_inside_the_steps(alpha: str, factor: str) -> None:
    problem = fs.Regression(np.sqrt(2.0) * np.eye(2), np.sqrt(2.0) * np.diag(VALUES))
    a, b = (0.0, 2 * ETA**2) if factor == "U" else (2 * ETA**2, 0.0)
    log_alpha = float(alpha[2:]) * np.log(10.0)
    slowest = np.sqrt((a + b) ** 2 / 4 + VALUES[1] ** 2) - (a + b) / 2
    times = np.linspace(0.0, -1.6 * log_alpha / slowest, 6_001)
    exact = np.stack([part(value, a, b, log_alpha, times) for value in VALUES], axis=1)
    start = {"U": np.eye(2), "V": np.eye(2)}
    net = fs.LinearNetwork(2, noise=fs.GaussianNoise({factor: ETA}))
    traj = fs.gradient_flow(net, problem, times[-1], alpha=alpha, start=start)
    seen = np.sort(np.concatenate([traj.t, traj.t[:-1] + 0.97 * np.diff(traj.t)]))
    inside = np.stack([part(value, a, b, log_alpha, seen) for value in VALUES], axis=1)
    for t, beta in ((times[::30], exact[::30]), (seen, inside)):
        assert np.abs(traj.at(t).beta - np.stack([np.diag(each) for each in beta])).max() <= 20e-6
    assert exact[-1, 1] > 0.05 and exact[-1, 0] > 0.5
    length = float(np.linalg.norm(np.diff(exact, axis=0), axis=1).sum())
    assert traj.arclength[-1] - traj.accelerated_time[-1] == pytest.approx(length, rel=2e-4)
