"""Results show themselves in a line or a card, travel between processes, and come back from files."""

from __future__ import annotations

import copy
import itertools
import pickle
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import flowsim as fs
from flowsim.results.netcdf import Labelled, read, write

PROBLEM = fs.datasets.sparse_regression(12, 6, 2, seed=3)
LABELS = fs.Problem(PROBLEM.X[:4], np.sign(PROBLEM.y[:4]), "logistic")
NET = fs.DiagonalNetwork("u*v")
NOISY = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1))


def flow(net: Any = NET, **options: Any) -> fs.Trajectory:
    return fs.gradient_flow(net, PROBLEM, 3.0, **{"alpha": 0.1, **options})


def compared(count: int) -> Any:
    descents = [fs.gradient_descent(NET, PROBLEM, 0.02 / 2**k, 100 * 2**k, alpha=0.1) for k in range(count)]
    return fs.compare(flow(), descents if count > 1 else descents[0])


MAKERS: dict[str, Callable[[], Any]] = {
    "growth": lambda: flow(alpha="1e-100", clock="accelerated"),
    "scipy": lambda: flow(method="LSODA"),
    "weights": lambda: flow(coordinates="weights"),
    "depth 3": lambda: flow(fs.DiagonalNetwork(depth=3)),
    "curve": lambda: flow(fs.DiagonalNetwork("tanh(u)*v")),
    "mixed orders": lambda: flow(fs.DiagonalNetwork(["u*v"] * 3 + ["u*v*w"] * 3)),
    "log loss": lambda: fs.gradient_flow(NET, LABELS, 9.0, alpha=0.1, clock="log_loss"),
    "log loss of two layers": lambda: fs.gradient_flow(fs.LinearNetwork(2), LABELS, 9.0, alpha=0.1, clock="log_loss"),
    "noise": lambda: flow(NOISY),
    "two layers": lambda: flow(fs.LinearNetwork(9)),
    "events": lambda: flow(events=[fs.events.crosses("beta", None, 0.5), fs.events.plateau_ends()]),
    "descent": lambda: fs.gradient_descent(NET, PROBLEM, 0.02, 100, alpha=0.1),
    "ensemble": lambda: fs.gradient_descents(NOISY, PROBLEM, 0.02, 50, runs=3, alpha=0.1, seed=1),
    "path": lambda: fs.saddle_to_saddle(NET, PROBLEM),
    "study": lambda: fs.limit_study(NET, PROBLEM, ["1e-30", "1e-100"]),
    "lasso": lambda: fs.lasso_link(fs.saddle_to_saddle(NET, PROBLEM)),
    "comparison": lambda: compared(1),
    "comparisons": lambda: compared(2),
    "problem": lambda: PROBLEM,
    "certificates": lambda: fs.certify(NET, PROBLEM, theorems=["saddles"]),
    "edge": lambda: fs.studies.edge_of_stability(NET, PROBLEM, [0.01], 50, n_sharpness=3),
    "limit of descent": lambda: fs.studies.descent_limit(PROBLEM, 0.1),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_result_is_one_line_and_travels_as_soon_as_it_is_made(name: str) -> None:
    result = MAKERS[name]()
    again = pickle.loads(pickle.dumps(result))
    for one in (result, again, copy.copy(result), copy.deepcopy(result)):
        text = repr(one)
        assert "\n" not in text and len(text) < 250 and "object at" not in text
    if isinstance(result, fs.Trajectory):
        np.testing.assert_array_equal(again.beta, result.beta)
        for weight in result.weights:
            np.testing.assert_array_equal(again.weights[weight], result.weights[weight])
        if result.dense is not None:
            np.testing.assert_array_equal(again.at(1.0).beta, result.at(1.0).beta)


def test_a_state_and_an_occurrence_are_one_line_too() -> None:
    run = MAKERS["events"]()
    for one in (run.at(1.0), run.at([0.5, 1.0]), run.events[0], run.events):
        assert len(repr(one)) < 250 and "\n" not in repr(one)
    first = run.events[0]
    assert first.accelerated_time == run.events.accelerated_time[0] and first.arclength == run.events.arclength[0]
    frame = run.events.to_dataframe()
    assert len(frame) == len(run.events) and frame["t"].iloc[0] == first.t


def test_reading_beta_computes_no_arc_length() -> None:
    # An arc length takes hundreds of readings inside the steps: seconds, before the functions are compiled.
    run = MAKERS["two layers"]()
    run.at(1.0).beta, run.at([0.5], clock="accelerated").beta, run.t
    assert "travelled" not in vars(run.dense)
    assert run.at(1.0).arclength > 0.0 and "travelled" in vars(run.dense)


@pytest.mark.parametrize("name", ["growth", "two layers", "path", "study", "comparison", "problem"])
def test_a_notebook_shows_a_card_with_facts_and_a_figure(name: str) -> None:
    card = ElementTree.fromstring(MAKERS[name]()._repr_html_())  # well-formed, whatever the names are
    assert len(card.findall(".//tr")) >= 3
    assert card.find(".//{http://www.w3.org/2000/svg}svg") is not None
    assert len(ElementTree.tostring(card)) < 60_000


def test_a_card_escapes_names() -> None:
    problem = fs.Regression(np.eye(2), [1.0, 2.0], feature_names=["<script>", "a&b"])
    assert "<script>" not in problem._repr_html_()
    ElementTree.fromstring(problem._repr_html_())


def test_plot_draws_what_the_plot_module_draws() -> None:
    assert len(flow().plot().get_lines()) >= PROBLEM.d
    assert len(fs.saddle_to_saddle(NET, PROBLEM).plot().get_lines()) >= 2


def test_tables_of_a_trajectory_and_of_a_path() -> None:
    run, path = flow(), fs.saddle_to_saddle(NET, PROBLEM)
    frame = run.to_dataframe()
    assert list(frame.columns[:4]) == ["t", "accelerated_time", "arclength", "loss"]
    np.testing.assert_array_equal(frame.iloc[:, 4:].to_numpy(), run.beta)
    assert list(flow(fs.LinearNetwork(9)).to_dataframe().columns[4:6]) == ["beta[x0, 0]", "beta[x1, 0]"]
    plateaus = path.to_dataframe()
    np.testing.assert_array_equal(plateaus["begins"], [0.0, *path.jump_times])
    np.testing.assert_array_equal(plateaus["loss"], path.losses)
    used = [int(name[6:-1]) for name in plateaus.columns[3:]]
    np.testing.assert_array_equal(plateaus.iloc[:, 3:].to_numpy(), path.saddles[:, used])


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_path_comes_back_from_its_file(kind: str, tmp_path: Path) -> None:
    problem = fs.Regression(scipy.sparse.csr_array(PROBLEM.X), PROBLEM.y) if kind == "sparse" else PROBLEM
    path = fs.saddle_to_saddle(NOISY, problem)
    again = fs.load(path.save(tmp_path / "path.nc"))
    assert isinstance(again, fs.SaddlePath)
    np.testing.assert_array_equal(again.jump_times, path.jump_times)
    np.testing.assert_array_equal(again.saddles, path.saddles)
    np.testing.assert_array_equal(again.end, path.end)
    times = np.linspace(0.0, 2 * path.jump_times[-1], 7)
    np.testing.assert_array_equal(again.time_average(times), path.time_average(times))
    np.testing.assert_array_equal(again.dual(times), path.dual(times))
    np.testing.assert_allclose(again.curve(times), path.curve(times))
    assert [event.name for event in again.events] == [event.name for event in path.events]
    assert again.complete == path.complete and again.message == path.message


def test_a_path_of_ties_or_without_jumps_comes_back_too(tmp_path: Path) -> None:
    for X, y in (([[1.0, 1.0]], [1.0]), ([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0]), ([[1.0]], [0.0])):
        path = fs.saddle_to_saddle(NET, fs.Regression(X, y))
        again = fs.load(path.save(tmp_path / "path.nc"))
        np.testing.assert_array_equal(again.saddles, path.saddles)
        assert [hit.tolist() for hit in again.hits] == [hit.tolist() for hit in path.hits]


def test_an_operator_cannot_be_kept_in_a_file(tmp_path: Path) -> None:
    operator = scipy.sparse.linalg.aslinearoperator(PROBLEM.X)
    path = fs.saddle_to_saddle(NET, fs.Regression(operator, PROBLEM.y))
    with pytest.raises(ValueError, match="LinearOperator"):
        path.save(tmp_path / "path.nc")


def test_names_of_files_are_taken_at_their_word(tmp_path: Path) -> None:
    run = flow()
    for name in ("run.csv", "run.json", "run"):
        with pytest.raises(ValueError, match=r"must end in .nc.*to_dataframe"):
            run.save(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="there is none at"):
        fs.load(tmp_path / "absent.nc")
    assert list(tmp_path.iterdir()) == []


def test_a_result_comes_back_as_it_was_put_together(tmp_path: Path) -> None:
    path = fs.saddle_to_saddle(fs.LinearNetwork(3), fs.Regression(np.eye(3), np.diag([3.0, 2.0, 1.0])))
    again = fs.load(path.save(tmp_path / "path.nc"))

    def kept(found: Any) -> list[list[bool]]:
        """Which blocks stay on their plateau in each jump."""
        return [[a is b for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(found.places)]

    assert kept(again) == kept(path) and np.sum(kept(path)) > 0
    assert again.stats == path.stats and again.problem.feature_names == path.problem.feature_names
    np.testing.assert_array_equal(read(tmp_path / "path.nc", "path")["jump_times"].values, path.jump_times)


def test_files_make_objects_of_known_classes_alone(tmp_path: Path) -> None:
    unknown = Labelled.of({}, {}, {"format": "flowsim-result-2", "result": '{"class": "eval", "fields": {}}'})
    with pytest.raises(ValueError, match="must be a result file"):
        fs.load(write(unknown, tmp_path / "other.nc", ""))


def test_datasets_say_what_their_variables_are() -> None:
    data = MAKERS["events"]().to_xarray()
    for name in set(data.variables) - {"feature"}:
        assert data[name].attrs["units"] == "1" and data[name].attrs["long_name"]
    assert data["loss"].attrs["long_name"] == "training loss"


def test_the_truth_of_made_data_is_kept() -> None:
    problem = fs.datasets.sparse_regression(30, 10, 3, seed=4)
    assert problem.truth is not None and np.count_nonzero(problem.truth) == 3
    np.testing.assert_allclose(problem.X @ problem.truth, problem.y)
    assert fs.datasets.diabetes().truth is None
    with pytest.raises(ValueError, match="`truth` must have shape"):
        fs.Regression(np.eye(2), [1.0, 2.0], truth=[1.0])


EQUAL: list[Callable[[], Any]] = [
    lambda: fs.DiagonalNetwork("u*v"),
    lambda: fs.DiagonalNetwork(["u*v", "u**2 - v**2"]),
    lambda: fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise({"u": 0.1, "v": 0.2})),
    lambda: fs.LinearNetwork(5, noise=fs.UniformNoise(0.1)),
    lambda: fs.MomentNoise(0.3, moments=(1, 0, 1, 0, 4)),
    lambda: fs.LaplaceNoise((0.1, 0.2), multiplicative=True),
    lambda: fs.losses.LOGISTIC,
    lambda: fs.losses.from_formula("(f - y)**4/4"),
]


@pytest.mark.parametrize("make", EQUAL)
def test_what_is_declared_alike_is_equal_and_hashes_alike(make: Callable[[], Any]) -> None:
    one, two = make(), make()
    assert one == two and hash(one) == hash(two) and len({one, two, copy.deepcopy(one)}) == 1
    assert pickle.loads(pickle.dumps(one)) == one and len(repr(one)) < 200


def test_what_is_declared_otherwise_is_not_equal() -> None:
    different = [
        fs.DiagonalNetwork("u*v"),
        fs.DiagonalNetwork(["u*v"]),
        fs.DiagonalNetwork(depth=3),
        fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1)),
        fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.2)),
        fs.DiagonalNetwork("u*v", noise=fs.UniformNoise(0.1)),
        fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1, multiplicative=True)),
        fs.LinearNetwork(2),
        fs.LinearNetwork(3),
        fs.GaussianNoise(0.1),
        "u*v",
    ]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: fs.gradient_flow(NET, PROBLEM, tend=3.0), "`t_end`"),
        (lambda: fs.gradient_flow(NET, PROBLEM, 3.0, tol=1e-3), "`rtol`"),
        (lambda: fs.gradient_descent(NET, PROBLEM, lr=0.1, n_steps=5), "`step`"),
        (lambda: fs.gradient_descents(NET, PROBLEM, learning_rate=0.1, n_steps=5), "`step`"),
        (lambda: fs.gradient_descent(NET, PROBLEM, 0.1, epochs=5), "`n_steps`"),
        (lambda: fs.saddle_to_saddle(NET, PROBLEM, maxjumps=5), "`max_jumps`"),
        (lambda: fs.limit_study(NET, PROBLEM, ["1e-5"], rtl=1e-3), "`rtol`"),
        (lambda: fs.Regression([[1.0]], [1.0], features=["a"]), "`feature_names`"),
        (lambda: fs.DiagonalNetwork(formla="u*v"), "`formula`"),
        (lambda: fs.LinearNetwork(hidden=3), "`width`"),
        (lambda: fs.datasets.sparse_regression(5, 5, 1, random_state=0), "`seed`"),
        (lambda: fs.plot.trajectory(flow(), clok="time"), "`clock`"),
        (lambda: fs.gradient_flow(NET, PROBLEM, T=3.0), "`t_end`"),
        (lambda: fs.gradient_flow(NET, PROBLEM, until=3.0), "`t_end`"),
        (lambda: fs.gradient_descent(NET, PROBLEM, 0.1, steps=5), "`n_steps`"),
        (lambda: fs.gradient_descents(NET, PROBLEM, 0.1, 5, n_runs=2), "`runs`"),
        (lambda: fs.gradient_descents(NET, PROBLEM, 0.1, 5, label_noise=0.1, seeds=[1, 2]), "`runs`"),
        (lambda: fs.DiagonalNetwork("u*v", eta=0.1), "`noise`"),
    ],
)
def test_a_keyword_nobody_takes_is_answered_with_the_one_that_was_meant(call: Callable[[], Any], meant: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument .*did you mean {meant}"):
        call()


def test_a_relative_accuracy_lies_below_one() -> None:
    for rtol in (1.0, 2.0):
        with pytest.raises(ValueError, match="`rtol` must be < 1"):
            flow(rtol=rtol)


def test_a_module_lists_what_is_public() -> None:
    assert dir(fs.events) == sorted(fs.events.__all__)
