from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes

import flowsim as fs


def test_the_bundled_diabetes_table_is_the_published_one(diabetes: fs.Regression) -> None:
    raw = load_diabetes(scaled=False)
    assert (diabetes.n, diabetes.d) == (442, 10)
    assert list(diabetes.feature_names) == raw.feature_names
    np.testing.assert_allclose((diabetes.X**2).mean(0), 1, rtol=1e-12)
    np.testing.assert_allclose(diabetes.X.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(diabetes.y, raw.target - raw.target.mean(), rtol=1e-12)
    np.testing.assert_allclose(diabetes.X, (raw.data - raw.data.mean(0)) / raw.data.std(0), rtol=1e-9)


def test_sparse_regression_is_reproducible_and_as_sparse_as_asked() -> None:
    first, second = (fs.datasets.sparse_regression(30, 10, 3, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.X, second.X)
    truth = np.linalg.lstsq(first.X, first.y, rcond=None)[0]
    assert np.sum(np.abs(truth) > 1e-9) == 3
    assert not np.array_equal(first.y, fs.datasets.sparse_regression(30, 10, 3, noise=0.1, seed=4).y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 1), "`n` and `d`"),
        ((5, 5, 6), "`sparsity`"),
        ((5, 5, 1, -1.0), "`noise`"),
        ((5, 5, 1, np.nan), "`noise`"),
    ],
)
def test_the_generator_refuses_impossible_sizes(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.datasets.sparse_regression(*arguments)


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.standard_normal((20, 3)), columns=["a", "b", "goal"])


def test_all_file_formats_give_the_same_problem(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", X=frame[["a", "b"]], y=frame["goal"], feature_names=["a", "b"])
    problems = [
        fs.datasets.read_table(tmp_path / "t.csv", "goal"),
        fs.datasets.read_table(tmp_path / "t.parquet", "goal"),
        fs.datasets.read_table(tmp_path / "t.npz"),
    ]
    for problem in problems:
        assert problem.feature_names == ("a", "b")
        np.testing.assert_allclose((problem.X**2).mean(0), 1, rtol=1e-12)
        np.testing.assert_allclose(problem.X, problems[0].X, rtol=1e-12)
        np.testing.assert_allclose(problem.y, problems[0].y, rtol=1e-12)
    raw = fs.datasets.read_table(tmp_path / "t.csv", "goal", raw=True)
    np.testing.assert_allclose(raw.X, frame[["a", "b"]], rtol=1e-12)


def change(column: str, row: int, value: object):
    def apply(frame: pd.DataFrame) -> None:
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "target", "message"),
    [
        (lambda f: None, "nothing", r"`target` must be a column of t.csv, one of 'a', 'b', 'goal'; received 'nothing'"),
        (lambda f: None, None, "`target` must name the target column"),
        (change("goal", 3, np.nan), "goal", "column 'goal' must be finite; row 3"),
        (change("a", 3, np.inf), "goal", "column 'a' must be finite; row 3 holds inf"),
        (change("b", 0, "text"), "goal", "column 'b' must hold numbers; received 'text'"),
        (lambda f: f.__setitem__("goal", 2.0), "goal", "`target` must vary; 'goal' in t.csv is constant"),
        (lambda f: f.__setitem__("a", 0.1), "goal", "'a' is constant"),
        (lambda f: [f.pop("a"), f.pop("b")], "goal", "no column besides the target"),
    ],
)
def test_spoilt_tables_are_refused_by_name(tmp_path: Path, frame: pd.DataFrame, spoil, target, message: str) -> None:
    spoil(frame)
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError, match=message):
        fs.datasets.read_table(tmp_path / "t.csv", target)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    for name, content, message in [
        ("t.csv", b"x,y\n", "no rows"),
        ("t.csv", b"", "cannot be read"),
        ("t.parquet", b"PAR1 not really", "cannot be read"),
        ("t.npz", b"PK\x03\x04 broken", "t.npz"),
        ("t.txt", b"a b", "must end in"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            fs.datasets.read_table(tmp_path / name, "y")
    with pytest.raises(ValueError, match="there is none at"):
        fs.datasets.read_table(tmp_path / "absent.csv", "y")
    np.savez(tmp_path / "pickled.npz", X=np.array([{}], dtype=object), y=np.ones(1))
    with pytest.raises(ValueError, match="pickled.npz"):
        fs.datasets.read_table(tmp_path / "pickled.npz")
    np.savez(tmp_path / "no_target.npz", X=np.eye(2))
    with pytest.raises(ValueError, match="no array 'y'"):
        fs.datasets.read_table(tmp_path / "no_target.npz")
