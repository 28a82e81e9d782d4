"""Run folders as ``flowsim run`` writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flowsim.cli import main

ALPHAS = ("1e-1000", "1e-30", "1e-3")
HOSTILE = "</script><script>window.stolen = 1</script><img src=x onerror=window.stolen=2>"
CERTIFICATES = [
    {
        "theorem": "Balancing",
        "hypothesis_met": True,
        "predicted": 0.0,
        "measured": 1e-15,
        "margin": None,
        "holds": True,
    },
    {"theorem": "<b>Rate</b>", "hypothesis_met": False, "predicted": [1, 2], "measured": 3.5, "holds": False},
]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scales on a table whose first feature is named to hurt; certificates with the smallest scale."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(5)
    X = rng.standard_normal((30, 4))
    frame = pd.DataFrame(X, columns=[HOSTILE, "weight & height", "age", "dose"])
    frame["response"] = 2 * X[:, 0] - X[:, 3] + 0.1 * rng.standard_normal(30)
    table = tmp_path_factory.mktemp("data") / "table.csv"
    frame.to_csv(table, index=False)
    for alpha in ALPHAS:
        main(["run", str(table), "--target", "response", "--alpha", alpha, "--out", str(folder / f"at {alpha}"),
              "--no-progress"])  # fmt: skip
    (folder / "at 1e-1000" / "certificates.json").write_text(json.dumps(CERTIFICATES))
    (folder / "notes").mkdir()
    return folder
