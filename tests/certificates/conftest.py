"""Each flow that certificates measure is integrated once, however many falsify it: flows are never changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import flowsim as fs
from flowsim.certificates import setting


def parts(value: Any) -> Any:
    """What decides a flow, to the last bit, as something that can be looked up."""
    if isinstance(value, fs.Problem):
        return type(value), *map(parts, (value.X, value.y, value.loss_function, value.sample_weight))
    if isinstance(value, dict):
        return tuple((name, parts(each)) for name, each in sorted(value.items()))
    return (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


@pytest.fixture(scope="package", autouse=True)
def flows_are_integrated_once() -> Iterator[None]:
    integrate, known = setting.gradient_flow, {}

    def kept(*arguments: Any, **options: Any) -> fs.Trajectory:
        key = (*map(parts, arguments), parts(options))
        if key not in known:
            known[key] = integrate(*arguments, **options)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setting, "gradient_flow", kept)
        yield
