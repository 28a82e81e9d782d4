"""Tables of the terminal: numbers to the right, text folded to its width, nothing lost."""

from __future__ import annotations

import pytest

from flowsim.text_table import text_table

ROWS = [("first", 1.5, "short"), ("second one", 22.25, "a sentence that is far too long for so narrow a terminal")]


def test_a_table_that_fits_has_one_line_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = text_table(["name", "number", "text"], ROWS, left=["name", "text"], title="Title").splitlines()
    assert lines[0] == "Title"
    assert lines[1] == "name        number  text"
    assert set(lines[2]) == {"-", " "}
    assert lines[3:] == ["first          1.5  short", f"second one   22.25  {ROWS[1][2]}"]


def test_the_widest_column_is_folded_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    lines = text_table(["name", "number", "text"], ROWS, left=["name", "text"]).splitlines()
    assert max(map(len, lines)) <= 50
    assert " ".join(" ".join(line[20:] for line in lines[3:]).split()) == ROWS[1][2]
