"""Fetches a data set from Kaggle, verifies it and lays it out where `dataset.root` expects it.

What kagglehub 1.0 does, read in its source, and what is left to do here:

- It keeps a partial archive and, called again, asks for the missing bytes only (HTTP Range) where the server
  offers that; unpacking that was cut off starts over from the archive. Running again is the remedy for both.
- It checks the archive's MD5 where the server states one, and zip checks each file's CRC; the number of
  images is checked here.
- Its requests to Kaggle never time out, only those that resume do; `_timeouts` gives all of them a limit.
- Its unpacking stays inside its folder, but a tar may bring symlinks; those are refused here.
- It asks Kaggle for the current version at every call, so even a complete cache needs the network.
"""

import errno
import logging
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from xray_lightning.arguments import check_arguments
from xray_lightning.cli import command
from xray_lightning.config import build, plain
from xray_lightning.console import progress
from xray_lightning.data.decode import FORMATS
from xray_lightning.errors import XRayError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds, for each address of the host
READ_TIMEOUT = 60.0  # seconds without a single byte


@dataclass(frozen=True)
class KaggleSource:
    """Where a data set comes from, and how many images it has to have.

    `handle` is `owner/name`, or `owner/name/versions/2` to stay at one release. `folder` is the folder in the
    archive that becomes `dataset.root`, "." where the class folders lie at its top. `counts` maps each class
    folder, relative to that, to the published number of images in it or in its `images` folder.
    """

    handle: str
    folder: str
    counts: Mapping[str, int]

    @property
    def page(self) -> str:
        return f"https://www.kaggle.com/datasets/{self.handle}"


def download(source: KaggleSource, root: str | Path) -> Path:
    """Makes `root` hold the complete data set, and returns it as an absolute path.

    A complete root is left as it is, and the network is not asked; an incomplete one is refused, and left as
    it is too. The files are hard links to kagglehub's cache where the file system allows that, else copies.

    Raises XRayError where Kaggle cannot be reached or refuses, where the archive is not what it should be,
    and where the disk is full.
    """
    root = Path(root).expanduser().absolute()
    if os.path.lexists(root):
        if table := _mismatch(source, root):
            raise XRayError(
                f"{root} exists, but is not the complete data set {source.handle}:\n\n{table}\n\n"
                "Nothing was changed. Move it away and run this again, or point dataset.root elsewhere."
            )
        log.info("%s is already there: %d images", root, sum(source.counts.values()))
        return root

    cache = _fetch(source, root)
    folder = cache / source.folder
    files = _files(folder, cache)
    if table := _mismatch(source, folder):
        raise XRayError(
            f"What Kaggle sent for {source.handle} is not the published data set:\n\n{table}\n\n"
            f"{root} was not made. To fetch the data set anew, remove {cache} and run this again; if the "
            f"counts stay the same, Kaggle has another release: see {source.page}"
        )
    _lay_out(folder, files, root)
    log.info("%s is complete: %d images", root, sum(source.counts.values()))
    log.info("kagglehub's own copy in %s is no longer needed and can be removed", cache)
    return root


def _fetch(source: KaggleSource, root: Path) -> Path:
    """Returns the folder of kagglehub's cache that holds the unpacked archive."""
    # kagglehub takes most of a second to import, and most commands never download.
    import kagglehub
    import requests
    from kagglehub import exceptions as kaggle
    from kagglehub.config import get_cache_folder

    # Unusable archives and credentials files, and what only Kaggle's own notebooks raise.
    notebook = (kaggle.BackendError, kaggle.CredentialError, kaggle.KaggleEnvironmentError)
    unusable = (ValueError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, *notebook)
    cache = Path(get_cache_folder()).expanduser().absolute()
    way_out = "or set KAGGLEHUB_CACHE to a folder on a larger disk"
    with _disk_errors(f"downloading {source.handle} to {cache}", way_out):
        try:
            with _timeouts():
                return Path(kagglehub.dataset_download(source.handle)).resolve()
        except requests.RequestException as error:
            # `is not None`, since a Response with an error status is false.
            status = error.response.status_code if error.response is not None else None
            reason = _reason(source, status)
            raise XRayError(f"{reason}\n\n{_by_hand(source, root)}\n\nThe error was: {error}") from error
        except kaggle.DataCorruptionError as error:
            raise XRayError(
                f"The archive of {source.handle} arrived damaged (wrong MD5) and was removed. Run this again."
            ) from error
        except unusable as error:
            archives = cache / "datasets" / source.handle.split("/versions/")[0] / "*.archive"
            raise XRayError(
                f"kagglehub could not fetch or unpack {source.handle}: {error}\n\n"
                f"If the archive is damaged, remove {archives} and run this again: kagglehub keeps it.\n\n"
                f"{_by_hand(source, root)}"
            ) from error


def _reason(source: KaggleSource, status: int | None) -> str:
    """Says what an HTTP status (None: no answer) means for somebody who wants a public data set."""
    if status is None:
        return (
            f"Downloading {source.handle} with kagglehub failed: the network or Kaggle could not be reached, "
            "or the connection broke off. Run this again when it is back: it goes on where it stopped."
        )
    if status in (401, 403):
        return (
            f"Kaggle refused {source.handle} (HTTP {status}). A public data set needs no login, but wrong "
            "credentials are refused all the same: check or unset KAGGLE_API_TOKEN, KAGGLE_USERNAME and "
            "KAGGLE_KEY, and the files access_token and kaggle.json in ~/.kaggle."
        )
    if status == 404:
        return f"Kaggle has no data set {source.handle} (HTTP 404): it was removed, renamed or made private."
    return f"Kaggle could not send {source.handle} (HTTP {status}). Run this again in some minutes."


def _by_hand(source: KaggleSource, root: Path) -> str:
    moved = "what it holds" if source.folder == "." else f"its folder '{source.folder}'"
    return (
        f"To fetch it by hand: download the archive from {source.page}, unpack it, and move {moved} to {root} "
        "(or point dataset.root to it)."
    )


@contextmanager
def _timeouts() -> Iterator[None]:
    """Gives a timeout to requests that have none: behind a silent firewall they would hang for minutes."""
    import requests

    send = requests.Session.send

    def send_in_time(self: requests.Session, request: requests.PreparedRequest, **kwargs: Any) -> Any:
        kwargs.setdefault("timeout", (CONNECT_TIMEOUT, READ_TIMEOUT))
        return send(self, request, **kwargs)

    # The client that sends them is built inside kagglehub; no argument and no setting reaches it.
    requests.Session.send = send_in_time  # type: ignore[method-assign]
    try:
        yield
    finally:
        requests.Session.send = send  # type: ignore[method-assign]


def _mismatch(source: KaggleSource, folder: Path) -> str:
    """Returns a table of expected and found images for each class, or nothing if all are right."""
    with _disk_errors(f"reading {folder}"):
        classes = progress(source.counts, f"Verifying {folder.name}", total=len(source.counts))
        found = {name: _count(folder / name) for name in classes}
    if found == dict(source.counts):
        return ""
    width = max(map(len, source.counts))
    lines = [f"  {'class':{width}}  expected  found"]
    for name, expected in source.counts.items():
        off = found[name] - expected
        remark = f"{-off} missing" if off < 0 else f"{off} too many" if off else ""
        lines.append(f"  {name:{width}}  {expected:8}  {found[name]:5}  {remark}".rstrip())
    return "\n".join(lines)


def _count(folder: Path) -> int:
    """Counts the images of one class, those in `images` where there is such a folder (beside it are `masks`).

    Empty files do not count: they are what a full disk or a crash leaves behind.
    """
    images = folder / "images"
    images = images if images.is_dir() else folder
    if not images.is_dir():
        return 0
    with os.scandir(images) as entries:
        return sum(
            Path(entry.name).suffix.lower() in FORMATS
            and not entry.name.startswith(".")
            and entry.is_file()
            and entry.stat().st_size > 0
            for entry in entries
        )


def _files(folder: Path, cache: Path) -> list[Path]:
    """Lists what is to be laid out, relative to `folder`.

    Left out are what macOS adds (`__MACOSX`, `.DS_Store`, `._*`) and the second copy of everything that
    Kaggle's chest_xray holds in chest_xray/chest_xray. Raises XRayError at anything but folders and files.
    """
    if not folder.is_dir():
        there = ", ".join(sorted(path.name for path in cache.iterdir())) or "nothing"
        raise XRayError(f"The archive in {cache} has no folder '{folder.name}'; it holds {there}.")
    files = []
    for here, folders, names in os.walk(folder):
        at = Path(here)
        if at.resolve() != at:
            raise XRayError(f"{at} in the archive leads to {at.resolve()}. Nothing was laid out.")
        junk = {"__MACOSX", folder.name} if at == folder != cache else {"__MACOSX"}
        folders[:] = [name for name in folders if name not in junk and not name.startswith(".")]
        names = [name for name in names if not name.startswith(".")]
        for path in (at / name for name in folders + names):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise XRayError(f"{path} in the archive is a link or no plain file. Nothing was laid out.")
        files += [(at / name).relative_to(folder) for name in names]
    return files


def _lay_out(folder: Path, files: list[Path], root: Path) -> None:
    """Builds the folder beside `root` and renames it, so that `root` is complete whenever it exists."""
    with _disk_errors(f"laying out {root}", "or point dataset.root to a larger disk"):
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{root.name}.partial-", dir=root.parent) as beside:
            # One folder further down, since the temporary folder itself is closed to other users.
            laid = Path(beside) / root.name
            laid.mkdir()
            place = _placer(folder, files, Path(beside) / "trial")
            for file in progress(files, f"Laying out {root.name}", total=len(files)):
                (laid / file).parent.mkdir(parents=True, exist_ok=True)
                place(folder / file, laid / file)
            laid.rename(root)


def _placer(folder: Path, files: list[Path], trial: Path) -> Callable[[Path, Path], object]:
    """Returns what puts a file in its place: hard linking if `trial` can be, copying if there is space."""
    try:
        os.link(folder / files[0], trial)
        return os.link
    except OSError:  # another file system, or one without hard links
        needed = sum((folder / file).stat().st_size for file in files)
        free = shutil.disk_usage(trial.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"it needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free")
    return shutil.copyfile


@contextmanager
def _disk_errors(doing: str, way_out: str = "") -> Iterator[None]:
    """Turns the operating system's errors into one message; `way_out` adds to it where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise XRayError(f"{doing} failed: {error}") from error
        advice = f"Free some space and run this again{way_out and ', ' + way_out}."
        raise XRayError(f"{doing} failed: {error.strerror}\n\n{advice}") from error


def source_of(dataset: DictConfig) -> KaggleSource:
    """Where a data set comes from: its configuration's `kaggle` node, or where there is none what its class says.

    Raises XRayError where neither says it, or the node is not complete.
    """
    node = plain(dataset.get("kaggle"))
    if node is None:
        source = getattr(get_object(dataset._target_), "kaggle", None)
        if source is None:
            raise XRayError(
                f"The data set {dataset.name} does not say where it can be downloaded. Add a kaggle node to its YAML "
                "file (conf/dataset/folder.yaml shows one), or put the images in place and name them: dataset.root=…"
            )
        return source
    if lacking := sorted({"_target_", *(field.name for field in fields(KaggleSource))} - set(node)):
        raise XRayError(f"dataset.kaggle lacks {', '.join(lacking)}. conf/dataset/folder.yaml shows a complete one.")
    check_arguments(OmegaConf.create({"dataset": {"kaggle": node}}))
    return build(node)


@command("download")
def main(cfg: DictConfig) -> None:
    print(f"The images are in {download(source_of(cfg.dataset), cfg.dataset.root)}")


if __name__ == "__main__":
    main()
