"""What may happen to a command that is given anything at all: success, or a refusal in clear words."""

import hashlib
import logging
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_lightning.errors import XRayError, told_in_words

DONE, REFUSED = "done", "refused"
LONGEST = 20_000  # characters of a message
LIMIT = 120  # seconds


class Fault(AssertionError):
    """What must not happen. Its message says what did."""


class Hang(BaseException):
    """No Exception, which the program may take for one of its own."""


@dataclass(frozen=True)
class Case:
    """A call, in words and as it is done, and the user's files that it must leave as they are."""

    words: str
    call: Callable[[], Any]
    keep: Sequence[Path] = ()


def outcome(case: Case) -> str:
    """DONE or REFUSED. Raises Fault for another exception, also one that is only logged, a hang, and changed files."""
    before = [digest(path) for path in case.keep]
    result = DONE
    with _logged() as faults:
        try:
            with _limited(LIMIT), told_in_words():  # as each command does
                case.call()
        except XRayError as error:
            result = REFUSED
            told = str(error)
            if not told.strip() or "Traceback" in told or len(told) > LONGEST:
                raise Fault(f"{case.words}\nis refused with this message: {told[:500]!r}") from error
        except Hang as error:
            raise Fault(f"{case.words}\nhangs:\n{traceback.format_exc()}") from error
        except Exception as error:
            raise Fault(f"{case.words}\nends in a traceback:\n{traceback.format_exc()}") from error
    if faults:
        raise Fault(f"{case.words}\nlogs a traceback:\n{faults[0]}")
    if before != [digest(path) for path in case.keep]:
        raise Fault(f"{case.words}\nchanges files of the user below {', '.join(map(str, case.keep))}")
    return result


def digest(path: Path) -> str:
    """Of a file, or of all names, kinds and contents below a folder, links not followed."""
    found = hashlib.blake2b(digest_size=16)
    inside = (Path(top, name) for top, folders, files in os.walk(path) for name in (*folders, *files))
    for file in sorted([path, *inside]):
        found.update(os.fsencode(file))
        if file.is_symlink():
            found.update(os.fsencode(os.readlink(file)))
        elif file.is_file():
            found.update(file.read_bytes())
    return found.hexdigest()


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Tracebacks of what the program catches and logs, in place of a message."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and not isinstance(record.exc_info[1], XRayError):
                found.append("".join(traceback.format_exception(*record.exc_info)))

    handler, log = Handler(), logging.getLogger("xray_lightning")
    log.addHandler(handler)
    try:
        yield found
    finally:
        log.removeHandler(handler)
