"""Studies, certificates and stochastic flows come back from files whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowsim as fs

PROBLEM = fs.datasets.sparse_regression(20, 4, sparsity=2, seed=1)
PRODUCT = fs.DiagonalNetwork("u*v")


def same_fields(own: Any, read: Any, names: tuple[str, ...]) -> None:
    for name in names:
        np.testing.assert_array_equal(getattr(read, name), getattr(own, name), err_msg=name)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("suffix", [".nc", ".h5"])
@pytest.mark.parametrize("net", [PRODUCT, fs.LinearNetwork(6)], ids=["diagonal", "linear"])
def test_a_saved_study_keeps_its_path_its_trajectories_and_its_rate(net: Any, suffix: str, tmp_path: Path) -> None:
    if suffix == ".h5":
        pytest.importorskip("h5netcdf")
    own = fs.limit_study(net, PROBLEM, ["1e-5", "1e-20"])
    again = fs.load(own.save(tmp_path / f"study{suffix}"))
    assert type(again) is type(own)
    same_fields(own, again, ("alphas", "gamma", "plateau_errors", "time_errors", "end_errors"))
    assert (repr(again.rate), repr(again)) == (repr(own.rate), repr(own))
    assert again.table().equals(own.table())
    same_fields(own.path, again.path, ("jump_times", "saddles"))
    assert len(again.trajectories) == 2
    for flow, read in zip(own.trajectories, again.trajectories, strict=True):
        same_fields(flow, read, ("t", "beta", "loss", "arclength"))
        assert read.info["network"] == flow.info["network"]


def test_a_study_of_one_scale_without_a_rate_comes_back_as_such(tmp_path: Path) -> None:
    own = fs.limit_study(PRODUCT, PROBLEM, ["1e-5"])
    again = fs.load(own.save(tmp_path / "study.nc"))
    assert again.alphas == own.alphas
    assert len(again.trajectories) == 1
    assert np.isnan(again.rate.order)


def test_saved_comparisons_and_links_come_back_whole_and_draw_themselves(tmp_path: Path) -> None:
    flow = fs.gradient_flow(PRODUCT, PROBLEM, 2.0, alpha=0.1)
    many = fs.gradient_descents(PRODUCT, PROBLEM, 0.02, 100, alpha=0.1, label_noise=0.1, runs=3, seed=0)
    for own in (
        fs.compare(flow, fs.gradient_descent(PRODUCT, PROBLEM, 0.02, 100, alpha=0.1)),
        fs.compare(flow, many),
        fs.lasso_link(fs.saddle_to_saddle(PRODUCT, PROBLEM)),
    ):
        again = fs.load(own.save(tmp_path / "result.nc"))
        assert type(again) is type(own) and repr(again) == repr(own)
        for name, value in vars(own).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(getattr(again, name), value)
        assert again.plot().get_lines()


def test_saved_certificates_keep_every_row(tmp_path: Path) -> None:
    own = fs.certify(PRODUCT, PROBLEM)
    again = fs.load(own.save(tmp_path / "certificates.nc"))
    assert again.to_json() == own.to_json()
    assert again.table() == own.table()
    assert again["jump-times"].status == "holds"
    empty = own[:0]
    assert fs.load(empty.save(tmp_path / "none.nc")).to_json() == empty.to_json()


def test_a_saved_stochastic_flow_keeps_all_its_arrays_and_shows_itself_in_a_line(tmp_path: Path) -> None:
    own = fs.stochastic_flow(PRODUCT, PROBLEM, 1.0, step=0.01, alpha=0.1, label_noise=0.1, n_paths=3, seed=0)
    again = fs.load(own.save(tmp_path / "sde.nc"))
    same_fields(own, again, ("t", "beta", "drive", "quadratic_variation", "log_abs_components", "log_conserved"))
    assert again.info == own.info
    np.testing.assert_array_equal(again.risk(PROBLEM), own.risk(PROBLEM))
    assert repr(own) == f"StochasticFlow(t {own.t.shape}, beta {own.beta.shape})"


def test_damaged_results_and_other_endings_are_refused_by_name(tmp_path: Path) -> None:
    own = fs.stochastic_flow(PRODUCT, PROBLEM, 0.1, step=0.01, alpha=0.1, n_paths=1, seed=0)
    with pytest.raises(ValueError, match=r"`path` must end in .nc: .* For other kinds: its arrays"):
        own.save(tmp_path / "sde.csv")
    file = own.save(tmp_path / "sde.nc")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="checksum does not match"):
        fs.load(file)
    with pytest.raises(ValueError, match="`path` must be the name of a trajectory, .* file; received int"):
        fs.load(3)
    with pytest.raises(FileNotFoundError, match="trajectory, path or other result file; there is none"):
        fs.load(tmp_path / "missing.nc")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        fs.load(tmp_path)
