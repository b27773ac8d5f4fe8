"""What is printed is text: no name steers the terminal."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_lightning.console import ConsoleHandler, legible


@given(st.text())
def test_nothing_but_letters_and_lines_reaches_the_terminal(text: str) -> None:
    shown = legible(text)
    assert len(shown) == len(text)
    assert all(letter.isprintable() or letter in "\n\t\u00a0" for letter in shown)


def test_a_message_keeps_its_lines_and_letters() -> None:
    assert legible("a\n\tbü – 日本\u00a0x") == "a\n\tbü – 日本\u00a0x"


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
def test_a_name_in_a_message_cannot_clear_the_screen(capsys: pytest.CaptureFixture[str], level: int) -> None:
    name = "\x1b[2J\x1b]0;title\x07[red]"
    ConsoleHandler().emit(logging.LogRecord("x", level, "", 0, "%s is bad", (name,), None))
    out, err = capsys.readouterr()
    assert "\x1b[2J" not in out + err and "?[2J?]0;title?[red] is bad" in out + err
