"""The formula reader: right on formulas, an error message on everything else, and never code."""

from __future__ import annotations

import math
import string
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowsim as fs
from flowsim.network import FUNCTIONS, Formula

POINT = {"u": 0.37, "v": -1.21, "w": 0.83, "alpha_1": 2.0, "lambda": 0.5}


def evaluate(text: str) -> float:
    formula = Formula.parse(text)
    return float(formula.expression.subs({symbol: POINT[symbol.name] for symbol in formula.expression.free_symbols}))


@pytest.mark.parametrize(
    "text",
    [
        "u*v",
        "2*u**2 - v**2",
        "-u**2",
        "u - v - w",
        "u - (v - w)",
        "u/v/w",
        "u/(v/w)",
        "u/v*w",
        "2**3**2*u",
        "2**-2*u",
        "u**-2",
        "-u**-2",
        "--u",
        "+-+u",
        "u*-v",
        "1e-3*u + .5*v + 2.",
        "(u)",
        "((u + v))*(u - v)",
        "1.5e2*u",
        "u**2**1",
        "3*u**(1/2) + u**0.5",
        "u*v/(1 + u**2)",
    ],
)
def test_precedence_and_associativity_are_pythons(text: str) -> None:
    assert evaluate(text) == pytest.approx(eval(text, {"__builtins__": {}}, dict(POINT)), rel=1e-14)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_listed_function_is_the_mathematical_one(name: str) -> None:
    argument = "1 + u**2" if name == "acosh" else "u"
    value = 1 + 0.37**2 if name == "acosh" else 0.37
    assert evaluate(f"{name}({argument})") == pytest.approx(getattr(math, name)(value), rel=1e-14)


def test_numbers_are_exact() -> None:
    assert Formula.parse("0.1*u").tree == ("*", ("num", Fraction(1, 10)), ("var", "u"))
    assert str(Formula.parse("0.1*u + u/3").expression) == "13*u/30"


def test_weights_come_in_order_of_first_appearance() -> None:
    assert Formula.parse("z*a + exp(m)*a").weights == ("z", "a", "m")


def test_keywords_and_sympy_names_are_ordinary_weights() -> None:
    for name in ("lambda", "I", "E", "S", "N", "Symbol", "import", "None", "class", "_x"[1:], "zoo", "oo", "nan"):
        formula = Formula.parse(f"{name}*u")
        assert formula.weights == (name, "u")
        assert {symbol.name for symbol in formula.expression.free_symbols} == {name, "u"}


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("u*v", ("u", "v")),
        ("(a*b)*(c*d)", ("a", "b", "c", "d")),
        ("u*u", None),
        ("2*u*v", None),
        ("u + v", None),
        ("u", ("u",)),
        ("u**1*v", None),
    ],
)
def test_plain_products_are_recognised(text: str, factors: tuple[str, ...] | None) -> None:
    assert Formula.parse(text).product_of == factors


HOSTILE = [
    "__import__('os').system('true')",
    "u.__class__",
    "u*v; import os",
    "().__class__.__bases__[0]",
    "lambda: 0",
    "[u for u in (1,)]",
    "{u}",
    "u[0]",
    "u if v else w",
    "u == v",
    "u := 3",
    "f'{u}'",
    "'u'",
    '"u"*10',
    "eval(u)",
    "exec(u)",
    "open(u)",
    "exp(u, v)",
    "exp()",
    "exp",
    "exp*u",
    "sin u",
    "u(v)",
    "2u",
    "u v",
    "u^2",
    "u***v",
    "u**v",
    "u**(v)",
    "u//v",
    "u%v",
    "u@v",
    "u&v",
    "~u",
    "!u",
    "u'",
    "u!",
    "#u",
    "u # comment",
    "u\\n",
    "u\x00v",
    "ü*v",
    "u×v",
    "u−v",
    "（u)",
    "0x10*u",
    "1_000*u",
    "1e*u",
    "1e9999*u",
    "1e400*u",
    "1e-400*u",
    "9" * 41 + "*u",
    "inf*",
    "",
    "   ",
    "()",
    "(u",
    "u)",
    "u+",
    "*u",
    "/u",
    "u*/v",
    ",",
    "u,v",
    "3",
    "pi",
    "2 + 3*pi",
    "u/0",
    "u/(1-1)",
    "0**-1*u",
    "u**65",
    "u**-65",
    "u**1e3",
    "u**(1/65)",
    "u**(1/0)",
    "u**1e300",
    "(u**64)**64",
    "((u**8)**8)**8*u",
    "9**64**64*u",
    "((9**60)**60)**60*u",
    "exp(exp(exp(9)))*u",
    "exp(exp(exp(exp(exp(9)))))*u",
    "1e300*1e300*u",
    "log(-1)*u",
    "log(0)*u",
    "sqrt(-1)*u",
    "(-1)**0.5*u",
    "asin(2) + u",
    "acosh(0.5)*u",
    "atanh(1)*u",
    "(" * 61 + "u" + ")" * 61,
    "u**" * 70 + "1",
    "exp(" * 61 + "u" + ")" * 61,
    "u" * 2001,
    "+".join("u" * 1000),
    "*".join("u" * 600),
    "-".join(["(u+v)"] * 300),
    "(" + "+".join("u" * 400) + ")**2",
    "((((" + "+u".join(["u)"] * 4) + "+u" * 240 + ")" + "+u" * 200 + ")" + "+u" * 200,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:24]))
def test_everything_outside_the_grammar_is_one_clear_error_at_once(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="`formula`") as caught:
        fs.DiagonalNetwork(text)
    assert time.process_time() - started < 0.5
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [None, 3, 1.5, b"u*v", ["u*v"], object()])
def test_only_text_is_read(value: object) -> None:
    with pytest.raises(ValueError, match="`formula` must be text"):
        Formula.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("u^2", r"unexpected '\^' \(write powers as \*\*\) at position 1"),
        ("2u", r"unexpected 'u' \(write products with \*\) at position 1"),
        ("(u", r"expected '\)' to close the bracket opened at 0"),
        ("tanhh(u)", "unknown function 'tanhh'; known: exp, log"),
        ("sin*u", "'sin' is a function and needs brackets at position 0"),
        ("u**v", "an exponent must be a number"),
        ("3 + 4", "must contain at least one weight"),
    ],
)
def test_messages_say_what_and_where(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        Formula.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1/(u - u)", "undefined: it divides by zero"),
        ("sqrt(u**2)", "not analytic: it equals Abs"),
        ("(u**2)**1.5*v", "not analytic"),
        ("sqrt(-u**2)*v", "not real"),
        ("log(u - u)", "undefined"),
    ],
)
def test_what_only_algebra_can_see_is_refused_when_it_is_looked_at(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = Formula.parse(text).expression


def test_the_longest_chains_that_pass_are_walked_without_recursion_errors() -> None:
    formula = Formula.parse("+".join(["u*v"] * 200))
    assert str(formula.expression) == "200*u*v"
    assert repr(formula.tree)
    assert hash(formula)
    nested = Formula.parse("(" * 55 + "u" + "+v)" * 55)
    assert str(nested.expression) == "u + 55*v"


def weights_or_message(text: str) -> bool:
    """Whether reading ends in weights or in our own error; anything else propagates."""
    try:
        return bool(Formula.parse(text).weights)
    except ValueError as error:
        return "`formula`" in str(error)


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet=string.printable, max_size=60))
def test_any_text_is_a_formula_or_a_value_error(text: str) -> None:
    assert weights_or_message(text)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(["u", "v", "2", "0.5", "+", "-", "*", "/", "**", "(", ")", "exp(", "pi", ",", " "]), max_size=25
    )
)
def test_any_sequence_of_tokens_is_a_formula_or_a_value_error(tokens: list[str]) -> None:
    assert weights_or_message("".join(tokens))


def expressions(depth: int) -> st.SearchStrategy[str]:
    leaf = st.one_of(st.sampled_from(["u", "v", "w"]), st.integers(1, 9).map(str), st.sampled_from(["0.25", "1.5"]))
    if depth == 0:
        return leaf
    below = expressions(depth - 1)
    return st.one_of(
        leaf,
        st.tuples(below, st.sampled_from("+-*"), below).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(below, st.sampled_from("+-*"), below).map("".join),
        below.map(lambda e: f"-({e})"),
        st.tuples(below, st.integers(1, 3)).map(lambda t: f"({t[0]})**{t[1]}"),
        below.map(lambda e: f"cos({e})"),
        below.map(lambda e: f"{e}/(2 + cos({e}))"),
    )


@settings(max_examples=60, deadline=None)
@given(expressions(3))
def test_generated_formulas_mean_what_python_means(text: str) -> None:
    scope = {"cos": math.cos, **{name: POINT[name] for name in "uvw"}}
    if not any(name in text.replace("cos", "") for name in "uvw"):
        return
    expected = eval(text, {"__builtins__": {}}, scope)
    assert evaluate(text) == pytest.approx(expected, rel=1e-9, abs=1e-9 * (1 + abs(expected)))


def test_networks_check_their_arguments() -> None:
    for arguments, message in [
        ({}, "give either `formula` or `depth`; received neither"),
        ({"formula": "u*v", "depth": 2}, "received both"),
        ({"depth": 1}, "`depth` must be an integer from 2 to 64; received 1"),
        ({"depth": 65}, "received 65"),
        ({"depth": 2.0}, "received 2.0"),
        ({"depth": True}, "received True"),
        ({"formula": []}, "must not be an empty list"),
        ({"formula": ["u*v", 3]}, "must be text"),
        ({"formula": 3}, "`formula`"),
        ({"formula": "u*v", "noise": 0.1}, "`noise` must be a noise such as GaussianNoise"),
    ]:
        with pytest.raises(ValueError, match=message):
            fs.DiagonalNetwork(**arguments)


def test_mixed_networks_know_their_kinds() -> None:
    net = fs.DiagonalNetwork(["u*v", "w**3", "u*v"])
    assert net.weights == ("u", "v", "w")
    assert net.kinds(3).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="lists 3 coordinates; the problem has d=4"):
        net.kinds(4)
    direction = net.direction(None, 3)
    np.testing.assert_array_equal(direction, [[np.sqrt(2), 1, np.sqrt(2)], [0, 1, 0], [1, 1, 1]])


def test_a_start_that_is_alike_everywhere_is_one_number_a_weight() -> None:
    net = fs.DiagonalNetwork("u*v")
    for start, column in ((None, [np.sqrt(2), 0]), ({"u": 3, "v": 0.5}, [3, 0.5])):
        direction = net.direction(start, 5)
        np.testing.assert_array_equal(direction, np.repeat(np.array(column)[:, None], 5, axis=1))
        assert direction.strides[1] == 0 and not direction.flags.writeable
    with pytest.raises(ValueError, match="must not be zero everywhere"):
        fs.gradient_flow(net, fs.Regression([[1.0]], [1.0]), 1.0, start={"u": 0.0, "v": 0.0})


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"u": 1.0}, "`start` must give every weight; 'v' is missing"),
        ({"u": 1.0, "v": 1.0, "x": 1.0}, "`start` names the unknown weight 'x'"),
        ({"u": [1.0, 2.0], "v": 0.0}, r"`start\['u'\]` must be a number or have shape \(3,\)"),
        ({"u": np.nan, "v": 0.0}, r"`start\['u'\]` must be finite"),
        ([1.0, 2.0], "`start` must map weights to arrays; received list"),
    ],
)
def test_bad_starts_are_named(start: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.DiagonalNetwork("u*v").direction(start, 3)  # type: ignore[arg-type]
