"""Each flow that certificates measure is integrated once, however many falsify it: flows are never changed."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

import flowsim as fs
from flowsim.certificates import setting


@pytest.fixture(scope="package", autouse=True)
def flows_are_integrated_once() -> Iterator[None]:
    integrate, known = setting.gradient_flow, {}

    def kept(*arguments: Any, **options: Any) -> fs.Trajectory:
        key = pickle.dumps((arguments, sorted(options.items())))
        if key not in known:
            known[key] = integrate(*arguments, **options)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setting, "gradient_flow", kept)
        yield
