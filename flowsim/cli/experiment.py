"""Experiment files: TOML, validated against a schema, with errors that name the key."""

from __future__ import annotations

import functools
import hashlib
import inspect
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flowsim.cli.registry import FILE_OPTIONS, FUNCTIONS, make_network, parameters_of, run_point
from flowsim.network import NAMED_NOISES
from flowsim.problem.losses import LOSSES
from flowsim.text_table import shortened

#: Largest size of an experiment file, in bytes.
_LONGEST = 1_000_000


def _said(text: str, default: Any = None) -> Any:
    """An optional key, with its description."""
    return Field(default=default, description=text)


Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**31)]
Natural = Annotated[int, Field(ge=0, lt=2**63)]
#: TOML types of one value of a parameter.
Value = bool | int | float | str | list[Any] | dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ProblemSection(_Strict):
    """[problem]: the data."""

    dataset: Literal["diabetes", "sparse_regression"] | None = _said("Data of the package; excludes `file`.")
    n: Count | None = _said("Rows of sparse_regression.")
    d: Count | None = _said("Features of sparse_regression.")
    sparsity: Natural | None = _said("Coefficients of sparse_regression that are not zero.")
    noise: Annotated[Number, Field(ge=0)] | None = _said("Standard deviation of the noise of y; 0 if left out.")
    seed: Natural | None = _said("Of the data of sparse_regression; 0 if left out.")
    file: str | None = _said("A table (.csv, .tsv, .parquet, .npz), from the experiment's folder; excludes `dataset`.")
    target: str | list[str] | None = _said("Target column of the file; several in a list.")
    raw: bool | None = _said("Take columns as they are instead of standardising them.")
    sep: str | None = _said("Between the columns of a text file; found out if left out.")
    columns: list[str] | None = _said("Only these features of the file.")
    drop: list[str] | None = _said("Columns of the file that are left out.")
    dropna: bool | None = _said("Leave out rows of the file with gaps.")
    index: str | int | None = _said("Column of the file, by name or place, that only numbers the rows.")
    loss: Literal[tuple(LOSSES)] | None = _said("Of one prediction; squared if left out.")  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _one_source(self) -> ProblemSection:
        if (self.dataset is None) == (self.file is None):
            raise ValueError("give either `dataset` or `file`")
        given = {name for name, value in self if value is not None}
        allowed, needed = {
            "diabetes": ({"dataset"}, set()),
            "sparse_regression": (
                {"dataset", "n", "d", "sparsity", "noise", "seed"},
                {"n", "d", "sparsity"},
            ),
            None: ({"file", "target", *FILE_OPTIONS}, set()),
        }[self.dataset]
        if given - allowed:
            raise ValueError(f"`{min(given - allowed)}` does not apply to {self.dataset or 'a file'}")
        if needed - given:
            raise ValueError(f"{self.dataset} needs `{min(needed - given)}`")
        return self


class NetworkSection(_Strict):
    """[network]: the network. Default: ``formula = "u*v"``."""

    formula: str | list[str] | None = _said(
        "One coordinate of the network, or a list with one for each; u*v if left out."
    )
    depth: Annotated[int, Field(ge=2, le=64)] | None = _said("Short form for the formula w1*w2*...*wL.")
    width: Count | None = _said("A two-layer linear network U V^T of that width instead.")
    noise: Literal[tuple(NAMED_NOISES)] | None = _said("Distribution of the weight noise.")  # type: ignore[valid-type]
    eta: Annotated[Number, Field(ge=0)] | None = _said(
        "Standard deviation of the weight noise; gaussian without `noise`."
    )
    multiplicative: bool | None = _said("The noise is in units of each weight.")
    weight_decay: Annotated[Number, Field(ge=0)] | None = _said("Adds lambda/2 times the squared norm of the weights.")

    @model_validator(mode="after")
    def _one_kind(self) -> NetworkSection:
        kinds = [name for name in ("formula", "depth", "width") if getattr(self, name) is not None]
        if len(kinds) > 1:
            raise ValueError(f"give only one of {' and '.join(f'`{kind}`' for kind in kinds)}")
        if self.noise is not None and self.eta is None:
            raise ValueError("`noise` needs `eta`")
        return self


class ExperimentFile(_Strict):
    """A sweep as a file.

    Keys of ``[grid]`` and of each of ``[[points]]`` are parameters of the function, or keys of the other sections,
    such as ``network.depth`` and ``problem.seed``.
    """

    function: Literal[tuple(FUNCTIONS)] = Field(description="What is computed at each point.")  # type: ignore[valid-type]
    title: str | None = _said("Of the result; the file's name if left out.")
    keep: Literal["end", "trajectory"] = _said("What is kept of a run: its last state, or every recorded time.", "end")
    seed: Natural | None = _said("Of functions that draw: each point gets a seed of its own, derived from it.")
    workers: Count | None = _said("Processes on this machine; 1 if left out.")
    store: str | None = _said("Folder of finished points, from the experiment's; EXPERIMENT.sweep if left out.")
    out: str | None = _said("Result (.nc), from the experiment's folder; EXPERIMENT.nc if left out.")
    problem: dict[str, Value] = _said("The data; those of diabetes if left out.", {"dataset": "diabetes"})
    network: dict[str, Value] = _said("What is trained; u*v if left out.", {})
    parameters: dict[str, Value] = _said("Arguments of the function that all points share.", {})
    grid: dict[str, Any] | None = _said("Lists of values, of which every combination is a point; excludes `points`.")
    points: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = _said(
        "The points one by one; excludes `grid`."
    )

    @model_validator(mode="after")
    def _grid_or_points(self) -> ExperimentFile:
        if (self.grid is None) == (self.points is None):
            raise ValueError("give either [grid] or [[points]]")
        return self

    def axes(self) -> dict[str, list[Any]] | list[dict[str, Any]]:
        """The grid as an argument of :func:`flowsim.sweep.sweep`."""
        if self.points is not None:
            return [_flat(point) for point in self.points]
        return _flat(self.grid or {})

    def call(self) -> functools.partial[Any]:
        """The function to sweep."""
        return functools.partial(
            run_point,
            function=self.function,
            problem=self.problem,
            network=self.network,
            parameters=self.parameters,
            keep=self.keep,
        )


def read_experiment(path: Path) -> ExperimentFile:
    """Read and check an experiment, down to the sections of every point.

    Raises ValueError with one line: the file, the key, the error, and what was found.
    """
    if not path.is_file():
        raise ValueError(f"`experiment` must be a TOML file; there is none at {path}.")
    if path.stat().st_size > _LONGEST:
        raise ValueError(f"`experiment` {path.name} must have at most {_LONGEST} bytes; it has {path.stat().st_size}.")
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"`experiment` {path.name} is not TOML: {error}.") from None
    try:
        experiment = ExperimentFile.model_validate(content)
    except ValidationError as error:
        raise _fault(path, error, "") from None
    problem = dict(experiment.problem)
    if isinstance(problem.get("file"), str):
        problem["file"] = str(path.parent / str(problem["file"]))  # paths are relative to the experiment's folder
    experiment = experiment.model_copy(update={"problem": problem})
    _check_axes(path, experiment)
    _check_names(path, experiment)
    _check_sections(path, experiment)
    return _with_checksum(path, experiment)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables: TOML reads ``network.depth = [2, 3]`` as a table in a table."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping) and not prefix and name in ("network", "problem"):
            found |= _flat(value, f"{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _check_axes(path: Path, experiment: ExperimentFile) -> None:
    axes = experiment.axes()
    if isinstance(axes, list):
        return
    if not axes:
        raise ValueError(f"{path.name}: `grid` must name at least one parameter.")
    for name, values in axes.items():
        if not isinstance(values, list):
            raise ValueError(f"{path.name}: `grid.{name}` must be a list of values; received {values!r}.")
        if not values:
            raise ValueError(f"{path.name}: `grid.{name}` must hold at least one value; received an empty list.")


def _check_names(path: Path, experiment: ExperimentFile) -> None:
    allowed = parameters_of(experiment.function)
    axes = experiment.axes()
    rows = [(f"points.{index}", row) for index, row in enumerate(axes)] if isinstance(axes, list) else [("grid", axes)]
    sections = {"problem": ProblemSection.model_fields, "network": NetworkSection.model_fields}
    for where, row in [*rows, ("parameters", experiment.parameters)]:
        for name in row:
            section, _, key = name.rpartition(".")
            known = list(sections.get(section, allowed if not section else {}))
            if key not in known:
                raise ValueError(
                    f"{path.name}: `{where}.{name}` is unknown; "
                    f"{section or experiment.function} takes {', '.join(known) or 'nothing'}."
                )
    if experiment.seed is not None and "seed" not in allowed:
        raise ValueError(f"{path.name}: `seed` does not apply; {experiment.function} draws nothing.")
    for where, row in rows:
        given = {*row, *experiment.parameters, *(("seed",) if experiment.seed is not None else ())}
        for name, parameter in allowed.items():
            if parameter.default is inspect.Parameter.empty and name not in given:
                raise ValueError(f"{path.name}: `parameters.{name}` is missing; {experiment.function} needs it.")
        if experiment.seed is not None and "seed" in (*row, *experiment.parameters):
            raise ValueError(f"{path.name}: `seed` is given twice, at the top and in `{where}` or `parameters`.")


def _check_sections(path: Path, experiment: ExperimentFile) -> None:
    """Validate each value of [problem] and [network], alone and then together with the others of each point."""
    from flowsim.sweep.grid import Points

    seen: set[str] = set()
    for point in Points.read(experiment.axes()).all():
        for section, model, base in (
            ("problem", ProblemSection, experiment.problem),
            ("network", NetworkSection, experiment.network),
        ):
            own = {name.partition(".")[2]: value for name, value in point.items() if name.startswith(f"{section}.")}
            merged = {**base, **own}
            if repr((section, merged)) in seen:
                continue
            seen.add(repr((section, merged)))
            try:
                model.model_validate(merged)
                if section == "network":
                    make_network(merged)
            except ValidationError as error:
                raise _fault(path, error, section) from None
            except ValueError as error:
                raise ValueError(f"{path.name}: `{section}`: {error}") from None


def _with_checksum(path: Path, experiment: ExperimentFile) -> ExperimentFile:
    """Add a checksum of the data file, so that another table under the same name is another experiment."""
    file = experiment.problem.get("file")
    if not isinstance(file, str):
        return experiment
    if not Path(file).is_file():
        raise ValueError(f"{path.name}: `problem.file` must be a file; there is none at {file}.")
    checksum = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return experiment.model_copy(update={"problem": {**experiment.problem, "sha256": checksum}})


def _fault(path: Path, error: ValidationError, section: str) -> ValueError:
    faults = error.errors(include_url=False, include_context=False)
    first = faults[0]
    key = ".".join(str(part) for part in ((section,) if section else ()) + first["loc"] if part not in _BRANCHES)
    text = first["msg"].removeprefix("Value error, ")
    received = (
        "" if first["type"] in ("missing", "value_error") else f"; received {shortened(repr(first['input']), 60)}"
    )
    more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
    return ValueError(f"{path.name}: `{key or 'experiment'}`: {text}{received}.{more}")


#: Pydantic's suffixes to the location of an error when a value may be of several types.
_BRANCHES = frozenset({"bool", "int", "float", "str", "list[any]", "dict[str,any]", "list[str]"})
