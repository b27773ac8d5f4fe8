"""What the source does nowhere: execute what a file holds. Each reader that could says that it will not."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*PROJECT.glob("*.py"), *(PROJECT / "xray_lightning").rglob("*.py")])
FORBIDDEN = ("eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "pickle.load",
             "pickle.loads", "torch.jit.load", "torch.hub.load", "joblib.load", "joblib.dump", "pickle.dump",
             "pickle.dumps", "shutil.unpack_archive", "tarfile.open")  # fmt: skip
NEEDED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
CONSTANTS = {"get_state_dict": ("weights_only", True)}  # by the last part of the name


def calls(source: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Each call's dotted name, and its keywords: their values where they are constants, else their code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            given = {k.arg: k.value for k in node.keywords if k.arg}
            constant = {key: value.value for key, value in given.items() if isinstance(value, ast.Constant)}
            yield ast.unparse(node.func), {key: ast.unparse(value) for key, value in given.items()} | constant


def complaints(source: str) -> list[str]:
    found = []
    for name, given in calls(source):
        last = name.rsplit(".", 1)[-1]
        key, value = NEEDED.get(name) or CONSTANTS.get(last) or ("", None)
        if key and given.get(key) is not value:
            found.append(f"{name} without {key}={value}")
        if name in FORBIDDEN or given.get("shell") is True or last in ("extractall", "load_from_checkpoint"):
            found.append(name)
        if name == "Image.open" and "formats" not in given:
            found.append("Image.open of any format")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_no_file_is_executed_by_reading_it(path: Path) -> None:
    assert complaints(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "pickle.loads(content)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "weights.get_state_dict(check_hash=True)",
        "archive.extractall(folder)",
        "Image.open(file)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert complaints(source)
