"""Notebooks: stored with their outputs, and run again from the first cell to the last."""

from __future__ import annotations

import base64
import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: Seconds one notebook may take; measured: below 20 with compiled kernels.
SECONDS = 60
#: Each states its results as assertions too, so that running it is a test.
QUICK = "first_steps"
#: Grey values, of 255, by which a stored figure may differ in the mean: fonts are set differently on other machines.
GREY = 2.0


def read(path: Path) -> Any:
    import nbformat

    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def test_there_is_a_notebook_for_each_paper_to_begin_with_on_tiny_alpha_and_on_linear_networks() -> None:
    assert {path.stem for path in NOTEBOOKS} == {
        "first_steps", "tiny_alpha", "linear_saddle_to_saddle", "separable_classification",
        "pesme_flammarion", "clara_langer_schmidt_hieber", "min_tarmoun_vidal_mallada",
    }  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_executed_in_order_with_figures(path: Path) -> None:
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert any("assert" in cell.source for cell in cells)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem == QUICK else pytest.mark.slow, id=path.stem) for path in NOTEBOOKS],
)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    monkeypatch.delenv("MPLBACKEND", raising=False)  # figures are shown in the notebook, whatever the shell asks for
    notebook = read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the machinery that starts the kernel
        client = NotebookClient(
            notebook, timeout=5 * SECONDS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        )
        client.execute()
    seconds = _seconds(notebook)
    assert seconds < SECONDS, f"{path.name} took {seconds:.0f} s"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                assert output.get("name") != "stderr", output.text
    for stored, new in zip(code_cells(path), (c for c in notebook.cells if c.cell_type == "code"), strict=True):
        assert words(stored) == words(new), "run the notebook again and store it"
        for old, drawn in zip(pictures(stored), pictures(new), strict=True):
            assert old.shape == drawn.shape and np.abs(old - drawn).mean() < GREY, "run the notebook again and store it"


def words(cell: Any) -> list[str]:
    """What a cell printed, without its numbers: these differ by rounding."""
    text = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    return re.findall(r"[A-Za-z]{2,}", text)


def pictures(cell: Any) -> list[Any]:
    """The grey values of its figures."""
    from PIL import Image

    shown = (output.get("data", {}).get("image/png") for output in cell.outputs)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L"), dtype=float) for png in shown if png]


def _seconds(notebook: Any) -> float:
    from datetime import datetime

    stamps = [
        datetime.fromisoformat(cell.metadata.execution[key].replace("Z", "+00:00"))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for key in ("iopub.execute_input", "iopub.status.idle")
    ]
    return (max(stamps) - min(stamps)).total_seconds()
