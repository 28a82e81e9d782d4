"""``flowsim derive``: what it prints, and one clear line with status 2 for bad input."""

from __future__ import annotations

import pytest

from flowsim.cli import main


def test_a_derivation_is_printed_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    main(["derive", "u*v", "--noise", "gaussian", "--eta", "0.1"])
    text = capsys.readouterr().out
    assert "u' = -η²·σ²·u - g·v" in text
    assert "I = u² - v²" in text
    assert "I'/I = -2·η²·σ²" in text
    assert "the Lasso with penalties η² σ_i²" in text


def test_depth_latex_and_mixed_networks(capsys: pytest.CaptureFixture[str]) -> None:
    main(["derive", "--depth", "3", "--latex"])
    assert r"w_{1}^{2} - w_{2}^{2}" in capsys.readouterr().out
    main(["derive", "2*u**2 - v**2", "w**4", "--degree", "3"])
    text = capsys.readouterr().out
    assert "I = u·v²" in text
    assert "t+ = 1/8" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["u*v("], "unknown function 'v'"),
        (["u*v", "--noise", "uniform"], "`--eta` must be given with --noise uniform"),
        (["u*v", "--depth", "2"], "give either FORMULA or `--depth`"),
        (["u*v", "--multiplicative"], "`--multiplicative` needs --eta"),
        (["u*v", "--eta", "-1"], "`--eta` must be >= 0"),
        (["u*v", "--degree", "0"], "`--degree` must be an integer >= 1"),
        (["u*v", "--noise", "cauchy", "--eta", "1"], "cauchy"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["derive", *arguments])
    output = capsys.readouterr()
    assert caught.value.code == 2
    assert message in output.err
    assert output.out == ""
    assert len(output.err.strip().splitlines()) == 1


def test_the_latex_has_subscripts_and_the_accelerated_time(capsys: pytest.CaptureFixture[str]) -> None:
    main(["derive", "--depth", "3", "--latex"])
    printed = capsys.readouterr().out
    assert r"weights $w_{1}, w_{2}, w_{3}$" in printed and r"$-\int  g_i d\tilde t$" in printed and "~" not in printed
