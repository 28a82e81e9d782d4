"""Screening and passes over sparse data leave out no coordinate: the same path, from less work and memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.sparse

import flowsim as fs
from flowsim.limits import duals, hits

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


@pytest.mark.parametrize("seed", range(4))
def test_one_pass_over_sparse_data_gives_the_dense_path_with_thresholds_and_penalties(seed: int) -> None:
    rng = np.random.default_rng(200 + seed)
    X = scipy.sparse.csr_array(np.where(rng.random((30, 3000)) < 0.03, rng.random((30, 3000)), 0.0))
    X.data = rng.standard_normal(X.nnz)
    y = rng.standard_normal(30)
    options = {} if seed == 0 else {
        "thresholds": (rng.uniform(0.5, 2, 3000), np.where(rng.random(3000) < 0.3, np.inf, 1.0)),
        "penalties": (1e-3, rng.uniform(0, 2e-3, 3000)) if seed > 1 else (0.0, 0.0),
    }  # fmt: skip
    dense = fs.saddle_to_saddle(NET, fs.Regression(X.toarray(), y), **options)
    assert_same(dense, fs.saddle_to_saddle(NET, fs.Regression(X, y), **options), jumps=20)


def test_more_ties_than_a_pass_keeps_are_all_seen() -> None:
    X = np.kron(np.eye(3), np.ones((1, 700)))  # 700 equal columns for each of three rows
    y = np.array([3.0, -2.0, 1.0])
    path = fs.saddle_to_saddle(NET, fs.Regression(scipy.sparse.csr_array(X), y))
    np.testing.assert_allclose(path.jump_times, [1.0, 1.5, 3.0], rtol=1e-12)
    assert [len(hit) for hit in path.hits] == [700] * 3
    np.testing.assert_allclose(path.end, np.repeat(y / 700, 700), rtol=1e-9)


def test_repeated_entries_stored_zeros_and_wide_indices_change_nothing() -> None:
    columns, pointer = np.array([5, 5, 0, 2, 7, 9], dtype=np.int64), np.array([0, 3, 6], dtype=np.int64)
    messy = scipy.sparse.csr_array(([1.0, 1.0, 0.0, 3.0, 0.0, -1.0], columns, pointer), shape=(2, 12))
    assert messy.nnz == 6
    X = np.zeros((2, 12))
    X[0, 5], X[1, 2], X[1, 9] = 2.0, 3.0, -1.0
    y = [2.0, 1.0]
    path, dense = (fs.saddle_to_saddle(NET, fs.Regression(form, y)) for form in (messy, X))
    np.testing.assert_allclose(path.jump_times, dense.jump_times, rtol=1e-14)
    np.testing.assert_allclose(path.saddles, dense.saddles, atol=1e-14)


def test_memory_grows_with_the_entries_and_not_with_the_features() -> None:
    rng = np.random.default_rng(0)
    n, d, entries = 200, 1_000_000, 200_000
    X = scipy.sparse.csr_array(
        (rng.standard_normal(entries), (rng.integers(0, n, entries), rng.integers(0, d, entries))), shape=(n, d)
    )
    problem = fs.Regression(X, rng.standard_normal(n))
    fs.saddle_to_saddle(NET, problem, max_jumps=2)
    tracemalloc.start()
    path = fs.saddle_to_saddle(NET, problem, max_jumps=20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * (X.data.nbytes + X.indices.nbytes + X.indptr.nbytes)
    assert peak < 2 * 8 * d  # two vectors of coefficients
    assert path.stats["gradients"] <= 3 * len(path.jump_times)


def test_numpy_finds_the_same_first_breakpoints_as_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    for d in (1, 7, 100, hits.BLOCK):
        bounds = tuple(hits.tabulate(side) for side in [np.full(d, 1.0), rng.uniform(1, 2, d), *np.zeros((2, d))])
        bounds[1][::3] = np.inf
        dual, g, before = rng.uniform(-1, 1, d), rng.standard_normal(d), 0.1 * rng.standard_normal(d)
        flags = rng.integers(0, 4, d).astype(np.uint8)
        found = []
        for few in (10**9, 0):
            monkeypatch.setattr(hits, "_FEW", few)
            s = dual.copy()
            found.append((*hits.next_hits(s, before, 0.5, g, bounds, (flags, np.full(d, 1e-14)), (0.5, 1.0)), s))
        for numpy, compiled in zip(*found, strict=True):
            np.testing.assert_array_equal(numpy, compiled)
