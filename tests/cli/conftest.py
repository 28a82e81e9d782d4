"""Commands without their pictures, which take most of the time of a short run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowsim.plot import style


@pytest.fixture
def drawn() -> None:
    """For tests of the pictures themselves."""


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(figure: Any, file: Path, **options: Any) -> None:
        Path(file).touch()

    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(style, "save", touch)
