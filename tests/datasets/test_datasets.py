from __future__ import annotations

import warnings
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
        ((0, 5, 1), "`n` must be an integer >= 1; received 0"),
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
        ("t.xls", b"a b", "must end in"),
        ("t.csv", "größe,y\n1,2\n".encode("latin-1"), "it is not text in UTF-8"),
        ("t.csv", b"a:y\n1:2\n3:4\n", "one of 'a:y'; received 'y'. It has one column only: `sep`"),
        ("t.csv", b"a,y,y\n1,2,3\n3,4,5\n", "it has two columns named 'y'; rename one"),
        ("t.csv", b"a,b,y\n1,,2\n3,,4\n", "'b' must be finite; .* (2 of 2 rows do): leave it out with `drop`"),
        ("t.csv", b"a,b,y\n1,inf,2\n3,4,4\n", "row 0 holds inf (1 of 2 rows do): correct it"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
            fs.datasets.read_table(tmp_path / name, "y")
    for sep in ("", "::", "1", 3):
        with pytest.raises(ValueError, match="`sep` must be one character"):
            fs.datasets.read_table(tmp_path / "t.csv", "y", sep=sep)
    with pytest.raises(ValueError, match="there is none at"):
        fs.datasets.read_table(tmp_path / "absent.csv", "y")
    np.savez(tmp_path / "pickled.npz", X=np.array([{}], dtype=object), y=np.ones(1))
    with pytest.raises(ValueError, match="pickled.npz"):
        fs.datasets.read_table(tmp_path / "pickled.npz")
    np.savez(tmp_path / "no_target.npz", X=np.eye(2))
    with pytest.raises(ValueError, match="no array 'y'"):
        fs.datasets.read_table(tmp_path / "no_target.npz")


def written(path: Path, frame: pd.DataFrame, **options: object) -> Path:
    frame.to_csv(path, **{"index": False, **options})
    return path


@pytest.mark.parametrize(("sep", "decimal"), [(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ","), ("|", ".")])
def test_separators_are_found_out(tmp_path: Path, frame: pd.DataFrame, sep: str, decimal: str) -> None:
    file = written(tmp_path / "t.csv", frame, sep=sep, decimal=decimal)
    np.testing.assert_allclose(fs.datasets.read_table(file, "goal", raw=True).X, frame[["a", "b"]])
    np.testing.assert_allclose(fs.datasets.read_table(file, "goal", raw=True, sep=sep).X, frame[["a", "b"]])


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("a b y", "{} {} {}"),
        ("  a   b  y ", " {}   {} {}  "),
        ('"a" "b" "y"', '"r" {} {} {}'),
        ("# a b y", "{} {} {}"),
        ("# a,b,y", "{},{},{}"),
        ("a , b , y", "{} , {} , {}"),
        ("a,b,y", "{},{},{},"),
        ("a,b,y,,", "{},{},{},,"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.filterwarnings("ignore:.*the first, which names the rows")
def test_layouts_of_numpy_r_and_spreadsheets_are_read(tmp_path: Path, head: str, row: str, encoding: str) -> None:
    values = [[1.5, 2.0, 3.0], [-1.0, 1e-3, 4.0], [0.0, 2.0, -3.0]]
    lines = [head, *(row.format(*each) for each in values)]
    (tmp_path / "t.txt").write_text("\n".join(lines) + "\n", encoding=encoding)
    problem = fs.datasets.read_table(tmp_path / "t.txt", "y", raw=True)
    assert np.column_stack([problem.X, problem.y]).tolist() == values and problem.feature_names == ("a", "b")


def test_a_separator_may_stand_in_quoted_names(tmp_path: Path, frame: pd.DataFrame) -> None:
    file = written(tmp_path / "t.csv", frame.rename(columns={"a": "a;x,y"}), sep=";")
    assert fs.datasets.read_table(file, "goal").feature_names == ("a;x,y", "b")


def test_columns_rows_and_row_numbers_can_be_left_out(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame["name"], frame["id"] = "text", range(100, 120)
    frame.loc[4, "b"] = np.nan
    file = written(tmp_path / "t.csv", frame)
    read = fs.datasets.read_table
    assert read(file, "goal", columns=["a"]).feature_names == ("a",)
    assert read(file, "goal", drop=["name", "b", "id"]).feature_names == ("a",)
    problem = read(file, "goal", drop=["name"], index="id", dropna=True)
    assert problem.feature_names == ("a", "b") and problem.n == 19
    assert read(file, "goal", drop=["name"], index=-1, dropna=True).feature_names == ("a", "b")
    for options, message in [
        ({"columns": ["c"]}, "`columns` must be a column of t.csv"),
        ({"drop": ["c"]}, "`drop` must be a column of t.csv"),
        ({"index": 9}, "`index` must be a column of t.csv, below 5"),
        ({"drop": ["name"]}, "'b' must be finite; row 4 holds no value.*`dropna`"),
        ({}, "column 'name' must hold numbers; received 'text' in row 0.*`drop`"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(file, "goal", **options)


def test_the_first_cell_that_is_no_number_is_the_one_named(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame["a"] = frame["a"].astype(object)
    frame.loc[2, "a"], frame.loc[7, "a"] = "?", "??"
    with pytest.raises(ValueError, match=r"column 'a' must hold numbers; received '\?' in row 2"):
        fs.datasets.read_table(written(tmp_path / "t.csv", frame), "goal")


@pytest.mark.parametrize("at", ["a", "goal"])
def test_question_marks_are_gaps(tmp_path: Path, frame: pd.DataFrame, at: str) -> None:
    """As in tables of the UCI repository."""
    marked = frame.astype(object)
    marked.loc[2, at] = "?"
    file = written(tmp_path / "t.csv", marked)
    with pytest.raises(ValueError, match=r"received '\?' in row 2: leave such rows out with `dropna` if"):
        fs.datasets.read_table(file, "goal")
    problem, right = (
        fs.datasets.read_table(each, "goal", raw=True, dropna=True)
        for each in (file, written(tmp_path / "right.csv", frame.drop(index=2)))
    )
    np.testing.assert_array_equal(problem.X, right.X)
    np.testing.assert_array_equal(problem.y, right.y)


def test_raw_tables_may_have_one_row_or_a_constant_target(tmp_path: Path) -> None:
    for rows in ("1,2,5\n", "1,2,5\n2,1,5\n"):
        (tmp_path / "t.csv").write_text("a,b,y\n" + rows)
        np.testing.assert_array_equal(np.unique(fs.datasets.read_table(tmp_path / "t.csv", "y", raw=True).y), [5.0])
        with pytest.raises(ValueError, match="`target` must vary"):
            fs.datasets.read_table(tmp_path / "t.csv", "y")


def test_row_numbers_without_a_name_are_left_out_and_said(tmp_path: Path, frame: pd.DataFrame) -> None:
    file = written(tmp_path / "t.csv", frame, index=True)
    with pytest.warns(UserWarning, match="the first column has no name and numbers the rows; it is left out"):
        problem = fs.datasets.read_table(file, "goal")
    assert problem.feature_names == ("a", "b")
    assert fs.datasets.read_table(file, "goal", index=0).feature_names == ("a", "b")
    assert fs.datasets.read_table(file, "goal", columns=["Unnamed: 0", "a"]).d == 2


def test_a_missing_table_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is none at"):
        fs.datasets.read_table(tmp_path / "absent.csv", "y")


@pytest.mark.parametrize(("a", "b"), [(1e200, 1e-200), (1e300, 1e-300)])
def test_columns_of_extreme_size_are_read_right(tmp_path: Path, frame: pd.DataFrame, a: float, b: float) -> None:
    plain = fs.datasets.read_table(written(tmp_path / "t.csv", frame), "goal")
    scaled = fs.datasets.read_table(written(tmp_path / "u.csv", frame.assign(a=a * frame.a, b=b * frame.b)), "goal")
    np.testing.assert_allclose(scaled.X, plain.X, rtol=1e-12, atol=1e-13)
    end = fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), scaled).end
    np.testing.assert_allclose(scaled.unscale(end) * [a, b], plain.unscale(end), rtol=1e-12)


@pytest.mark.parametrize("first", [("r1", "r2", "r3"), (1, 2, 3)])
def test_names_of_rows_as_r_writes_them_are_left_out_and_said(tmp_path: Path, first: tuple[object, ...]) -> None:
    rows = zip(first, ("0.5,1,4", "2,1,9", "3,0,1"), strict=True)
    (tmp_path / "t.csv").write_text("a,b,y\n" + "".join(f"{name},{row}\n" for name, row in rows))
    with pytest.warns(UserWarning, match="one field more than the first line"):
        problem = fs.datasets.read_table(tmp_path / "t.csv", "y", raw=True)
    assert problem.X.tolist() == [[0.5, 1.0], [2.0, 1.0], [3.0, 0.0]] and problem.y.tolist() == [4.0, 9.0, 1.0]


@pytest.mark.parametrize("rows", ["1,2,3,4\n5,6,7,9\n", "1,2,3,4\n5,6,7\n4,3,1\n", "1,2,3,4,5\n2,6,7,9,8\n"])
def test_a_first_line_that_lacks_a_name_shifts_no_column(tmp_path: Path, rows: str) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n" + rows)
    with pytest.raises(
        ValueError, match=r"`path` t.csv cannot be read: it has rows with more fields than its first line"
    ):
        fs.datasets.read_table(tmp_path / "t.csv", "y")


PLAIN = ["a,y\n1,2\n3,-.5e-3\n", "a;y\r\n1;2\r\n007;+4\r\n", "a\ty\n0.1\t12345678901234567890\n1e5\t4"]
OTHERS = [
    "a,y\n1,2\n\n3,4\n", ",a,y\n0,1,2\n1,3,4\n", "a, y\n1, 2\n3, 4\n", '"a","y"\n1,2\n3,4\n', "a;y\n1,5;2\n3;4\n",
    "\ufeffa,y\n1,2\n3,4\n", "a,a,y\n1,2,3\n2,3,4\n", "a,y\n1,\n3,4\n", "a,y\n3-4,2\n3,4\n", "a,y\n1e999,2\n3,4\n",
    "a,y\n1,2,3\n3,4,5\n", "a,y\n1,2\n3\n", "a,y\n", "",
]  # fmt: skip


def test_a_table_of_thousands_of_columns_is_read_without_pandas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowsim.datasets import files

    monkeypatch.setattr(files, "_read_frame", None)
    values = np.random.default_rng(0).standard_normal((30, 7001))
    names = [f"x{i}" for i in range(7000)]
    np.savetxt(tmp_path / "t.csv", values, "%.17g", ",", header=",".join([*names, "y"]), comments="")
    problem = fs.datasets.read_table(tmp_path / "t.csv", "y", raw=True)
    np.testing.assert_array_equal(np.column_stack([problem.X, problem.y]), values)
    assert list(problem.feature_names) == names


@pytest.mark.parametrize("text", PLAIN + OTHERS)
def test_plain_tables_are_read_without_pandas_as_pandas_reads_them(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowsim.datasets import files

    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    assert (files._read_plain(path, None) is not None) == (text in PLAIN)

    def read() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = fs.datasets.read_table(path, "y", raw=True)
            except ValueError as error:
                return str(error)
        return found.X.tolist(), found.y.tolist(), list(found.feature_names)

    quick = read()
    monkeypatch.setattr(files, "_read_plain", lambda *_: None)
    assert quick == read()
