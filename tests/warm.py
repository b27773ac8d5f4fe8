"""A process that has imported what takes seconds, of which commands are forked: each in a process of its own."""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from select import select


class Warm:
    """Runs `python <words>` to its end, as subprocess.run does. Modules of the project are imported anew each time."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}  # threads survive no fork
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def __call__(
        self, words: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        assert self._server.stdin is not None and self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("out", "err")]
            request = {"words": [*map(str, words)], "cwd": str(cwd), "env": dict(env), "files": [*map(str, files)]}
            self._server.stdin.write(json.dumps(request).encode() + b"\n")
            self._server.stdin.flush()
            if not select([self._server.stdout], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(list(words), timeout)
            status = int(self._server.stdout.readline())
            shown, errors = (file.read_text() for file in files)
        return subprocess.CompletedProcess(list(words), status, shown, errors)

    def close(self) -> None:
        self._server.communicate()


def _become(words: list[str], cwd: str, env: dict[str, str], files: list[str]) -> None:
    """Makes this process what the interpreter makes of itself for the command, and runs that."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    null = os.open(os.devnull, os.O_RDONLY)
    outputs = [os.open(file, os.O_WRONLY | os.O_CREAT) for file in files]
    for number, descriptor in enumerate([null, *outputs]):
        os.dup2(descriptor, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.orig_argv = [sys.executable, *words]
    first = cwd if words[0] == "-m" else str(Path(words[0]).parent.resolve())
    sys.path[:1] = [first, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def _serve() -> None:
    import torchvision.transforms.v2  # noqa: F401

    for line in sys.stdin.buffer:
        if (child := os.fork()) == 0:
            _become(**json.loads(line))
            sys.exit()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(1, f"{status}\n".encode())


if __name__ == "__main__":
    _serve()
