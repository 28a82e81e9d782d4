"""Screening leaves out no coordinate: the same path, from far fewer inner products."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs
from flowsim.limits import duals

NET = fs.DiagonalNetwork("u*v")


def both(problem: fs.Regression, monkeypatch: pytest.MonkeyPatch, **options: object) -> list[fs.SaddlePath]:
    paths = []
    for bound in (10**9, 0):
        monkeypatch.setattr(duals, "SCREEN_FROM", bound)
        paths.append(fs.saddle_to_saddle(options.pop("net", NET), problem, **options))  # type: ignore[arg-type]
    return paths


def assert_same(full: fs.SaddlePath, screened: fs.SaddlePath, jumps: int) -> None:
    assert len(full.jump_times) >= jumps
    np.testing.assert_allclose(screened.jump_times, full.jump_times, rtol=1e-9)
    assert [h.tolist() for h in screened.hits] == [h.tolist() for h in full.hits]
    np.testing.assert_allclose(screened.saddles, full.saddles, atol=1e-9 * np.abs(full.saddles).max())


@pytest.mark.parametrize("seed", range(6))
def test_whole_paths_agree_on_wide_data(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(10, 40)), int(rng.integers(200, 600))
    X = rng.standard_normal((n, d)) * rng.uniform(0.5, 2, d)
    assert_same(*both(fs.Regression(X, rng.standard_normal(n)), monkeypatch), jumps=n)


@pytest.mark.parametrize("seed", range(4))
def test_paths_agree_with_thresholds_and_penalties(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(100 + seed)
    X, y = rng.standard_normal((30, 300)), rng.standard_normal(30)
    thresholds = (rng.uniform(0.5, 2, 300), np.where(rng.random(300) < 0.3, np.inf, 1.0))
    paths = both(fs.Regression(X, y), monkeypatch, thresholds=thresholds, penalties=(0.02, rng.uniform(0, 0.05, 300)))
    assert_same(*paths, jumps=20)


def test_paths_agree_on_integers_with_ties_and_dependent_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    X = rng.integers(-1, 2, (8, 60)).astype(float)
    X = np.column_stack([X, X[:, :20], -X[:, 20:40]])
    paths = both(fs.Regression(X, rng.integers(-3, 4, 8).astype(float)), monkeypatch)
    assert any(len(hit) > 1 for hit in paths[0].hits)
    assert_same(*paths, jumps=3)


def test_paths_agree_on_tall_data_and_on_a_continued_start(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = fs.datasets.diabetes()
    full, screened = both(problem, monkeypatch)
    assert_same(full, screened, jumps=11)
    monkeypatch.setattr(duals, "SCREEN_FROM", 0)
    rest = fs.saddle_to_saddle(NET, problem, full.state(1.0))
    np.testing.assert_allclose(rest.jump_times + 1.0, full.jump_times[full.jump_times > 1.0], rtol=1e-9)


def test_far_fewer_inner_products_are_taken() -> None:
    problem = fs.datasets.sparse_regression(100, 4000, 10, noise=0.2, seed=0)
    path = fs.saddle_to_saddle(NET, problem, max_jumps=60)
    taken = path.stats["gradients"] * problem.d + path.stats["columns"]
    assert taken < 0.5 * 60 * problem.d
