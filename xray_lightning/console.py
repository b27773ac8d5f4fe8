"""What long work shows on the terminal: messages and progress bars, on one console so that they do not mix."""

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import get_console
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from xray_lightning.processes import is_first, rank

T = TypeVar("T")


class ConsoleHandler(logging.Handler):
    """Prints messages whole, without folding, so that paths can be copied; errors go to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.INFO and get_console().is_terminal:
            return  # the progress bar tells
        text = Text(legible(self.format(record)))
        if record.levelno >= logging.ERROR:
            who = "Error: " if is_first() else f"Error in process {rank() + 1}: "
            text = Text(who, style="bold red").append(Text(str(text), style="default"))
            Console(stderr=True).print(text, soft_wrap=True)
        else:
            style = "yellow" if record.levelno >= logging.WARNING else ""
            get_console().print(text, style=style, soft_wrap=True)


class FirstProcess(logging.Filter):
    """Of a run on several devices, what the first process says, and errors of all."""

    def filter(self, record: logging.LogRecord) -> bool:
        return is_first() or record.levelno >= logging.ERROR


def printable(name: object) -> str:
    """A file's name as it can be shown and logged: control characters and bytes that are no text become `?`."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(name))


def legible(text: str) -> str:
    """Lines as `printable` shows a name: what is said of a file must not steer the terminal."""
    return "".join(letter if letter in "\n\t\u00a0" else printable(letter) for letter in text)


def table_console() -> Console:
    """As wide as the terminal; a file or a pipe has no edge to fold at."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def progress(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Passes the items on, with a bar on terminals that counts them and tells the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = get_console()
    with Progress(*columns, console=console, transient=True, disable=not (console.is_terminal and is_first())) as bar:
        yield from bar.track(items, total=total, description=description)
