"""Hostile input by the thousand: python fuzz.py TARGET FIRST COUNT [folder].

Every case must end in a result or in the documented ValueError, within a second of CPU time, without running any code.
A case that kills the process, or makes it hang, is named by the last line it printed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import string
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: Seconds of CPU time that one case may take.
LIMIT = 1.0
#: What running code looks like to the interpreter; opening and reading files is what loaders do.
FORBIDDEN = frozenset(
    {"exec", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pickle.find_class", "subprocess.Popen",
     "ctypes.dlopen", "socket.connect", "urllib.Request", "shutil.rmtree"}
)  # fmt: skip

Case = Callable[[random.Random], None]

NAMES = [
    "u",
    "v",
    "w1",
    "w2",
    "a",
    "exp",
    "log",
    "sqrt",
    "sin",
    "tanh",
    "erf",
    "pi",
    "e",
    "E",
    "I",
    "x" * 50,
    "__class__",
]
TOKENS = [
    *"+-*/(),.^%;:[]{}'\"\\ \t\n\0",
    "**",
    "//",
    "==",
    "lambda",
    "import",
    "é",
    "λ",
    "²",
    "∞",
    "٣",
    "\u202e",
    "\ud800",
]
NUMBERS = [
    *"01238", "64", "65", "0.5", "1e3", "1e-3", "1e999", "1e-999", "1e9999", ".5", "5.", "1_000", "0x10", "1e", "00",
    "1.2.3", "nan", "inf", "9" * 39, "9" * 41,
]  # fmt: skip
ATTACKS = [
    line.strip()
    for line in """
    __import__('os').system('touch hacked')
    u.__class__.__mro__[1].__subclasses__()
    exec('1')
    open('hacked','w')
    (lambda: 0)()
    u*v; import os
    9**9**9**9**9
    2**(2**(2**(2**64)))
    u**(10**10)
    u**-64**64
    ((u+v)**64)**8
    (u+v+a+w1+w2)**500
    (u**(63/64))**(64/63)
    u**(1/63)
    1/(u-u)
    (u-u)**(-1)
    0**0*u
    log(0)*u
    sqrt(-1)*u
    tan(pi/2)*u
    atanh(1)*u
    (1e999**64)**8*u
    (1e999**8)**64*u
    (((1e999**8)**8)**8)*u
    1e999**64*u
    1e999**512*u
    exp(1e999)*u
    exp(1e999**64)*u
    exp(exp(exp(1e9)))*u
    erf(1e999**8)*u
    tan(1e999**300)*u
    cos(1e999**500)*u
    asin(1e999**200)*u
    sqrt(1e999**511)*u
    (1e999+1)**(1/64)*u
    (1e999+7)**(63/64)*u
    (9999999999999999999999999999999999999967)**(1/64)*u
    sqrt(9999999999999999999999999999999999999967*9999999999999999999999999999999999999943)*u
    sin(999999999999999999999999999999999999999**64)*u
    """.splitlines()
    if line.strip()
]
ATTACKS += ["(" * 1999, "-" * 2000, "u" + "*u" * 900, "u" + "+u" * 900, "exp(" * 59 + "u" + ")" * 59]
ATTACKS += ["u" + "".join(f"*(1e{n}+1e-{n})**(1/{k})" for k in range(2, 64)) for n in (40, 150, 499)]
ATTACKS += [
    "u" + "*(" + "1e19*u*1e-19*u*" * 100 + "1)**(1/3)",
    "u*sqrt(" + "+".join(f"1e-{n}" for n in range(1, 200)) + ")",
]
ATTACKS += ["log(" * 30 + "1e999*u" + ")" * 30]
CALLS = ["exp", "log", "sqrt", "tanh", "sin", "erf", "atanh", "tan"]


def valid_formula(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(["u", "v", "w", "2", "0.5", "pi", "1e-3", "0"])
    a, b = valid_formula(rng, depth - 1), valid_formula(rng, depth - 1)
    return rng.choice(
        [f"{a}+{b}", f"{a}-{b}", f"{a}*{b}", f"({a})*({b})", f"({a})/({b})", f"-({a})", f"+{a}", f"({a})",
         f"({a})**{rng.randint(-3, 9)}", f"({a})**0.5", f"({a})**(1/3)", f"{rng.choice(CALLS)}({a})"]
    )  # fmt: skip


def formula_text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.35:
        text = valid_formula(rng, rng.randint(1, 6))
    elif kind < 0.6:
        text = "".join(
            rng.choice(rng.choice([NAMES, TOKENS, NUMBERS, ["+", "*", "**", "(", ")"]]))
            for _ in range(rng.randint(0, 25))
        )
    elif kind < 0.7:
        text = "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randint(0, 40)))
    elif kind < 0.8:
        text = "".join(rng.choice(string.printable) for _ in range(rng.randint(0, 60)))
    elif kind < 0.9:
        text = rng.choice(ATTACKS)
    else:
        text = rng.choice(NAMES + NUMBERS) + (rng.choice(TOKENS) + rng.choice(NAMES + NUMBERS)) * rng.randint(0, 700)
    if rng.random() < 0.4 and text:
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(rng.choice([NAMES, TOKENS, NUMBERS, [""]])) + text[at + rng.randint(0, 2) :]
            text = text or "u"
    return text


def formula_case() -> Case:
    from flowsim.network import Formula

    Formula.parse("exp(u)*v + 0.5").expression.evalf()  # loads SymPy, which builds some of itself by exec

    def case(rng: random.Random) -> None:
        text = formula_text(rng)
        formula = Formula.parse(text)
        assert formula.weights
        assert hash(formula) is not None
        assert repr(formula)
        assert formula.product_of is None or set(formula.product_of) <= set(formula.weights)
        symbols = formula.expression.free_symbols
        assert {str(symbol) for symbol in symbols} <= set(formula.weights)

    return case


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Torn, cut, shifted, flipped and overwritten."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(len(data) + 1)
        size = rng.choice([1, 2, 4, 8, 64, 512, 4096])
        kind = rng.randrange(7)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at : at + size] = rng.randbytes(size)
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = rng.randbytes(size)
        elif kind == 4:
            data[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f"])
        elif kind == 5 and data:
            for _ in range(rng.choice([1, 3, 30])):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 6:
            other = rng.randrange(len(data) + 1)
            data[at : at + size] = data[other : other + size]
    return bytes(data)


def file_case(folder: Path, name: str, make: Callable[[Path], None], load: Callable[[Path], Any]) -> Case:
    original = folder / f"original-{name}"
    make(original)
    content = original.read_bytes()
    load(original)
    target = folder / name

    def case(rng: random.Random) -> None:
        for path in folder.glob(f"{name}*"):
            path.unlink()
        target.write_bytes(mutated(content, rng))
        load(target)

    return case


def trajectory_case(folder: Path) -> Case:
    from flowsim.loading import load
    from flowsim.results import Trajectory

    t = np.linspace(0.0, 1.0, 5)
    beta = np.outer(t, np.arange(3.0))
    weights = {"u": beta, "v": beta}
    trajectory = Trajectory(
        t=t, accelerated_time=t, arclength=t, beta=beta, weights=weights, log_abs_weights=weights, loss=t,
        imbalance=beta[:, None], log_imbalance=beta[:, None], imbalance_drift=0.0, success=True, message="done",
        stats={"steps": 4}, invariants=("u**2 - v**2",), info={"alpha": "1e-1000"},
    )  # fmt: skip

    def check(path: Path) -> None:
        found = load(path)
        # Whatever is read is what was written: a damaged file is never a slightly different trajectory.
        for name in ("t", "beta", "loss", "imbalance"):
            assert np.array_equal(getattr(found, name), getattr(trajectory, name)), name

    return file_case(folder, "run.nc", lambda path: trajectory.save(path) and None, check)


def payload_case() -> Case:
    from flowsim.sweep.codec import decode, encode, record

    originals = [
        encode(record(value))
        for value in (1.5, "text", {"a": np.arange(6.0).reshape(2, 3), "b": {"c": 1j}, "s": np.array(["x", "yz"])})
    ]

    def case(rng: random.Random) -> None:
        decode(mutated(rng.choice(originals), rng))

    return case


def store_case(folder: Path) -> Case:
    from flowsim.sweep import Store
    from flowsim.sweep.store import Outcome, checksum

    def outcome(index: int) -> Outcome:
        payload = bytes([index]) * (50 * index)
        return Outcome(str(index), "done", 0.5, payload, checksum(str(index), "done", 0.5, payload))

    expected = {str(index): outcome(index) for index in range(40)}

    def make(path: Path) -> None:
        with Store(path) as store:
            store.begin_run("f", "code", {}, "host")
            store.put(list(expected.values()), {})

    def check(path: Path) -> None:
        with Store(path) as store:
            store.begin_run("f", "code", {}, "host")
            found = {o.key: o for o in store.read(expected)}
            assert all(o == expected[key] for key, o in found.items())  # less, but never something else
            store.put(list(expected.values()), {})
            store.environments(list(expected))
            store.rows()
            assert {o.key: o for o in store.read(expected)} == expected

    return file_case(folder, "store", make, check)


EXPERIMENT = """
function = "gradient_flow"
title = "a study"
seed = 3
workers = 2
[problem]
dataset = "sparse_regression"
n = 4
d = 6
sparsity = 2
[network]
formula = "u*v"
[parameters]
t_end = 2.0
[grid]
alpha = [1e-2, "1e-100"]
problem.seed = [0, 1]
network.eta = [0.0, 0.1]
"""
TOML_PIECES = [
    '"', "'", '"""', "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\n", "#", "nan", "inf", "-inf", "true", "-1", "0",
    "1979-05-27T07:32:00Z", "0x", "1e999", "9" * 400, "[" * 500, "{a=" * 200, "a." * 500, "\\u0000", "\\ud800", "grid",
    "points", "network", "problem", "function", "os.system", "__class__", "[]", "{}", '"u**"', "é", "\x00", "\ud7ff",
    '"' + "(" * 3000 + '"',
]  # fmt: skip


def experiment_case(folder: Path) -> Case:
    from flowsim.cli.experiment import read_experiment
    from flowsim.sweep import plan

    path = folder / "study.toml"

    def case(rng: random.Random) -> None:
        text = EXPERIMENT.replace("seed = 3\n", "") if rng.random() < 0.7 else EXPERIMENT
        for _ in range(rng.choice([1, 1, 2, 6])):
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice(TOML_PIECES) + text[at + rng.choice([0, 0, 1, 5, 20]) :]
        data = text.encode("utf-8", "surrogatepass")
        path.write_bytes(mutated(data, rng) if rng.random() < 0.3 else data)
        found = read_experiment(path)
        plan(found.call(), found.axes(), seed=found.seed)

    path.write_text(EXPERIMENT.replace("seed = 3\n", ""))
    found = read_experiment(path)
    plan(found.call(), found.axes(), seed=found.seed)
    return case


def table_case(folder: Path) -> Case:
    import pandas

    from flowsim.datasets import read_table

    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(rng.standard_normal((6, 3)), columns=["a", "b", "y"])
    makers: dict[str, Callable[[Path], Any]] = {
        "table.csv": lambda path: frame.to_csv(path, index=False),
        "table.parquet": lambda path: frame.to_parquet(path),
        "table.npz": lambda path: np.savez_compressed(path, X=frame[["a", "b"]].to_numpy(), y=frame["y"].to_numpy()),
        "plain.npz": lambda path: np.savez(path, X=frame[["a", "b"]].to_numpy(), y=frame["y"].to_numpy()),
    }
    cases = [file_case(folder, name, make, lambda path: read_table(path, "y")) for name, make in makers.items()]

    def case(rng: random.Random) -> None:
        rng.choice(cases)(rng)

    return case


def prepare(target: str, folder: Path) -> Case:
    if target == "formula":
        return formula_case()
    if target == "payload":
        return payload_case()
    makers = {"trajectory": trajectory_case, "store": store_case, "experiment": experiment_case, "table": table_case}
    return makers[target](folder)


def main(target: str, first: int, count: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    case = prepare(target, folder)
    armed = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if armed and event in FORBIDDEN and not is_import(event, arguments):
            os.write(2, f"FORBIDDEN {event} {arguments!r:.200}\n".encode())
            traceback.print_stack(limit=6)
            os._exit(3)

    case_errors: Counter[str] = Counter()
    sys.addaudithook(watch)
    sys.unraisablehook = lambda hook: case_errors.update([f"unraisable {hook.exc_value!r}"])
    for index in range(first, first + count):
        os.write(1, f"{index}\n".encode())
        signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
        armed = True
        try_case(case, random.Random(index), case_errors)
        armed = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
    os.write(1, (json.dumps(case_errors) + "\n").encode())


def is_import(event: str, arguments: tuple[Any, ...]) -> bool:
    """A library that loads one of its own modules late."""
    name = getattr(arguments[0], "co_filename", "") if event == "exec" and arguments else ""
    return name.startswith("<frozen") or os.path.isfile(name)


def try_case(case: Case, rng: random.Random, errors: Counter[str]) -> None:
    try:
        case(rng)
        errors["read"] += 1
    except ValueError as error:
        text = str(error)
        errors["ValueError" if "`" in text or "stored point" in text else f"ValueError without a name: {text}"] += 1
    except Exception as error:
        traceback.print_exc()
        errors[f"{type(error).__name__}: {error}"[:300]] += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4] if len(sys.argv) > 4 else "."))
