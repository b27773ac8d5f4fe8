"""Which files a person means who names a file, a folder or a pattern."""

from collections.abc import Iterable, Iterator
from glob import has_magic
from pathlib import Path

from xray_lightning.data.incoming import SUFFIXES
from xray_lightning.errors import XRayError


def found_files(inputs: str | Path | Iterable[str | Path]) -> list[Path]:
    """Files as they are named, all images below folders, and what patterns such as films/*.png match, each once.

    Folders and matches are in the order of their names, and hidden files left out. Raises XRayError where something
    named is not there, or no file is found.
    """
    named = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    try:
        files = dict.fromkeys(file for name in named if str(name) for file in _files(str(name)))
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise XRayError(f"input cannot be looked for: {error.filename}: {error.strerror}.") from error
    if not files:
        raise XRayError(
            "input names no file. Give files, folders or patterns, such as input=films or 'input=films/*.png'."
        )
    return list(files)


def _files(name: str) -> Iterator[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        found = [p for p in path.rglob("*") if _is_image(p.relative_to(path)) and p.is_file()]
        if not found:
            raise XRayError(f"{path} holds no images. Their names end in {', '.join(SUFFIXES)}.")
        yield from sorted(found)
    elif path.exists() or path.is_symlink():
        yield path
    elif matches := sorted(_matches(path)):
        yield from (match for match in matches if match.is_file())
    else:
        raise XRayError(f"input={name}: there is no such file or folder, and nothing that matches it as a pattern.")


def _matches(pattern: Path) -> Iterator[Path]:
    """What is not hidden. Unlike glob.glob it follows no links to folders, which may lead around in circles."""
    parts = pattern.parts
    plain = next((i for i, part in enumerate(parts) if has_magic(part)), len(parts))
    folder = Path(*parts[:plain])
    if plain < len(parts):
        try:
            found = folder.glob(str(Path(*parts[plain:], *["*"] * (parts[-1] == "**"))))
            yield from (f for f in found if not any(p.startswith(".") for p in f.relative_to(folder).parts))
        except (ValueError, NotImplementedError) as error:
            raise XRayError(f"input={pattern} is no pattern ({error}).") from error


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)
