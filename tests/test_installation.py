"""What a wheel holds, what stays out of the package's own folders, and how type checkers see a user's script."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import numpy as np
import flowsim as fs

rng = np.random.default_rng(0)
problem = fs.Regression(rng.standard_normal((20, 4)), rng.standard_normal(20))
net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1))
path = fs.saddle_to_saddle(net, problem)
stops = [fs.events.loss_reaches(1e-3)]
traj = fs.gradient_flow(net, problem, 3.0, alpha="1e-100", clock="accelerated", events=stops)
fs.plot.overview(traj).savefig("overview.png")
fs.plot.trajectory(traj).set_title(str(path.jump_times[0]))
largest: float = fs.compare(traj, fs.gradient_descent(net, problem, 0.1, 10, alpha="1e-100")).largest
print(traj.at(1.0).beta.shape, largest, fs.derive(net), traj.to_dataframe().shape)
print(fs.studies.measured_jump_times(traj, path).sum(), fs.certify(net, problem)["saddles"].holds)
reveal_type(fs.plot.trajectory(traj))
reveal_type(path.jump_times)
loaded = fs.load(traj.save("run.nc"))
reveal_type(loaded)
if isinstance(loaded, fs.Trajectory):
    print(loaded.beta.shape)
"""


@pytest.mark.slow
def test_a_users_script_is_clean_in_the_strict_mode_of_mypy(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "script.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout
    types = [line.split("Revealed type is")[1] for line in done.stdout.splitlines() if "Revealed" in line]
    assert "Axes" in types[0] and "ndarray" in types[1] and "SaddlePath" in types[2]
    assert not any('"Any"' in each for each in types)


def test_running_leaves_nothing_in_the_folders_of_the_package(tmp_path: Path) -> None:
    code = "\n".join([
        "import flowsim as fs",
        "problem = fs.Regression([[1.0]], [1.0])",
        "for formula in ('u*v', 'u*v*w', 'u**4 - v**4'):",
        "    fs.gradient_flow(fs.DiagonalNetwork(formula), problem, 1.0, alpha=0.1)",
    ])  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert not [path for top in ("flowsim", "solvers") for path in (ROOT / top).rglob("*.nb[ic]")]


@pytest.mark.slow
def test_a_wheel_holds_solvers_style_page_and_assets(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="setuptools is not installed: no wheel can be built here")
    tree = tmp_path / "tree"
    tree.mkdir()
    _copy_sources(tree)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(tmp_path),
        ".",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tree)
    assert done.returncode == 0, done.stderr
    assert "would be ignored" not in done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "flowsim/py.typed", "flowsim/solvers/__init__.py", "flowsim/solvers/multistep/__init__.py",
        "flowsim/plot/flowsim.mplstyle", "flowsim/report/page.html", "flowsim/explore/assets/explore.css",
        "flowsim/datasets/diabetes.csv",
    } <= names  # fmt: skip
    assert not [name for name in names if name.endswith((".nbi", ".nbc"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "installs", [["."], ["-e", "."], [".", "-e", "."], ["-e", ".", "."]], ids=lambda given: " then ".join(given)
)
def test_the_readme_runs_in_the_checkout_however_it_was_installed(installs: list[str], tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="setuptools is not installed: nothing can be built here")
    tree, environment = tmp_path / "tree", tmp_path / "venv"
    tree.mkdir()
    _copy_sources(tree)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    # What is installed here can be imported there; links that editable installations have left are not followed.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    given = list(installs)
    while given:
        what = [given.pop(0)] if given[0] == "." else [given.pop(0), given.pop(0)]
        done = subprocess.run(
            [*pip, "--no-build-isolation", "--force-reinstall", *what], capture_output=True, text=True, cwd=tree
        )
        assert done.returncode == 0, done.stderr
    links = [each.read_text().strip() for each in site.glob("__editable__*.pth")]
    assert links == ([str(tree)] if installs[-2:] == ["-e", "."] else [])  # type checkers and editors follow it
    (block,) = re.findall(r"```python\n(.*?)```", (tree / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"MPLBACKEND": "Agg"}
    for folder in (tree, tmp_path):  # in the checkout, and anywhere else
        code = block + "\nprint(fs.__file__)"
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=folder, env=clean)
        assert done.returncode == 0, done.stderr
        assert (folder / "jumps.png").stat().st_size > 10_000
        assert Path(done.stdout.splitlines()[-1]).is_relative_to(tmp_path)
    assert not [path for folder in (tree, site) for path in folder.rglob("*.nb[ic]")]


def _copy_sources(tree: Path) -> None:
    for name in ("flowsim", "solvers", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        shutil.copytree(source, tree / name, symlinks=True) if source.is_dir() else shutil.copy(source, tree / name)
