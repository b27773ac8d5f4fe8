"""Downloads with the real kagglehub from a stand-in for Kaggle on 127.0.0.1."""

import base64
import errno
import hashlib
import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import textwrap
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from xray_lightning.data import download as module
from xray_lightning.data.download import KaggleSource, download
from xray_lightning.errors import XRayError

kaggle_env = pytest.importorskip("kagglesdk.kaggle_env")

SOURCE = KaggleSource("someone/chest", "chest_xray", {"train/NORMAL": 3, "train/PNEUMONIA": 4, "test/NORMAL": 2})
COVID = KaggleSource("someone/covid", "COVID-19", {"COVID": 2, "Viral Pneumonia": 3})


class Kaggle:
    """What kagglehub needs of Kaggle: a data set's version, and its archive behind a redirect."""

    def __init__(self) -> None:
        self.archive = b""
        self.status = 200
        self.cut_at: int | None = None  # bytes after which the storage drops the connection
        self.silent = False
        self.damaged = False
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _handler(kaggle) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                kaggle.requests.append(self.path.rsplit("/", 1)[-1])
                if kaggle.silent:
                    time.sleep(1.5)
                elif kaggle.status != 200:
                    self.answer(kaggle.status, json.dumps({"message": "no"}).encode())
                elif self.path == "/v1/datasets.DatasetApiService/GetDataset":
                    self.answer(200, json.dumps({"currentVersionNumber": 2}).encode())
                else:
                    self.answer(302, b"", Location=f"{kaggle.url}/storage/archive.zip")

            def do_GET(self) -> None:
                start = int(self.headers.get("Range", "bytes=0-")[6:-1])
                kaggle.requests.append(f"archive from {start}")
                body, md5 = (
                    kaggle.archive[start:],
                    hashlib.md5(kaggle.archive + b"!" * kaggle.damaged).digest(),
                )
                headers = {"Accept-Ranges": "bytes", "x-goog-hash": f"md5={base64.b64encode(md5).decode()}"}
                self.answer(206 if start else 200, body, kaggle.cut_at, **headers)

            def answer(self, status: int, body: bytes, cut_at: int | None = None, **headers: str) -> None:
                self.send_response(status)
                kind = "application/json" if self.command == "POST" else "application/zip"
                for name, value in {
                    "Content-Type": kind,
                    "Content-Length": str(len(body)),
                    **headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[:cut_at])

            def log_message(self, *_: object) -> None: ...

        return Handler


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    kaggle = Kaggle()
    for name in [name for name in os.environ if name.startswith(("KAGGLE", "TBE_RUNTIME"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # no credentials of whoever runs the tests
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, kaggle.url)
    thread = Thread(target=kaggle.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield kaggle
    kaggle.server.shutdown()
    kaggle.server.server_close()
    thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chest_xray"


def images(source: KaggleSource, inside: str = "", suffix: str = "jpeg") -> dict[str, bytes]:
    return {
        f"{source.folder}/{name}/{inside}{i}.{suffix}": f"{name} {i}".encode() * 50
        for name, n in source.counts.items()
        for i in range(n)
    }


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def nothing_laid(root: Path) -> bool:
    return not root.parent.exists() or not list(root.parent.iterdir())


def refused(source: KaggleSource, root: Path) -> str:
    with pytest.raises(XRayError) as caught:
        download(source, root)
    return str(caught.value)


def test_lays_out_the_images_and_no_junk(kaggle: Kaggle, root: Path) -> None:
    wanted = images(SOURCE)
    nested = {f"chest_xray/{name}": content for name, content in wanted.items()}
    junk = ["chest_xray/.DS_Store", "chest_xray/train/NORMAL/._0.jpeg", "__MACOSX/chest_xray/._train"]
    junk += ["chest_xray/__MACOSX/train/NORMAL/0.jpeg", "chest_xray/train/__MACOSX/0.jpeg"]
    kaggle.archive = zipped({**wanted, **nested, **dict.fromkeys(junk, b"x")})

    assert download(SOURCE, str(root)) == root
    assert tree(root) == {name.removeprefix("chest_xray/") for name in wanted}
    assert (root / "train/NORMAL/1.jpeg").read_bytes() == wanted["chest_xray/train/NORMAL/1.jpeg"]
    assert [path.name for path in root.parent.iterdir()] == ["chest_xray"]
    assert root.stat().st_mode & 0o777 == (root / "train").stat().st_mode & 0o777


def test_a_second_call_does_nothing(kaggle: Kaggle, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    kaggle.archive = zipped(images(SOURCE))
    download(SOURCE, root)
    kaggle.requests.clear()
    with caplog.at_level(logging.INFO):
        assert download(SOURCE, root) == root
    assert kaggle.requests == []
    assert f"{root} is already there: 9 images" in caplog.text


def test_a_cut_download_goes_on_where_it_stopped(kaggle: Kaggle, root: Path) -> None:
    big = os.urandom(3 << 20)
    kaggle.archive = zipped({**images(SOURCE), "chest_xray/train/NORMAL/0.jpeg": big})
    kaggle.cut_at = 5 << 19
    assert "the connection broke off" in refused(SOURCE, root)
    assert nothing_laid(root)
    kaggle.cut_at = None
    download(SOURCE, root)
    assert kaggle.requests[-1] == f"archive from {2 << 20}"  # kagglehub writes whole MiB
    assert (root / "train/NORMAL/0.jpeg").read_bytes() == big


@pytest.mark.parametrize("inside", ["images/", ""], ids=["images folder", "older release"])
def test_covid_layouts(kaggle: Kaggle, tmp_path: Path, inside: str) -> None:
    masks = images(COVID, "masks/", "png") if inside else {}
    files = {**images(COVID, inside, "png"), **masks, "COVID-19/COVID.metadata.xlsx": b"x"}
    kaggle.archive = zipped(files)
    root = download(COVID, tmp_path / "covid")
    assert tree(root) == {name.removeprefix("COVID-19/") for name in files}
    assert download(COVID, root) == root


def test_wrong_counts_are_refused(kaggle: Kaggle, root: Path) -> None:
    files = images(SOURCE)
    del files["chest_xray/train/PNEUMONIA/0.jpeg"]
    files["chest_xray/train/PNEUMONIA/1.jpeg"] = b""  # an empty file is no image
    files["chest_xray/test/NORMAL/more.jpg"] = b"x"
    kaggle.archive = zipped(files)
    message = refused(SOURCE, root)
    rows = [line.split() for line in message.splitlines()]
    assert ["train/NORMAL", "3", "3"] in rows
    assert ["train/PNEUMONIA", "4", "2", "2", "missing"] in rows
    assert ["test/NORMAL", "2", "3", "1", "too", "many"] in rows
    assert str(Path(os.environ["KAGGLEHUB_CACHE"]) / "datasets/someone/chest/versions/2") in message
    assert nothing_laid(root)


def test_an_archive_without_the_folder_is_refused(kaggle: Kaggle, root: Path) -> None:
    kaggle.archive = zipped({"other/0.jpeg": b"x", "readme.txt": b"x"})
    assert "has no folder 'chest_xray'; it holds other, readme.txt" in refused(SOURCE, root)
    assert nothing_laid(root)


@pytest.mark.parametrize("content", [{}, {"train/NORMAL/0.jpeg": b"mine"}], ids=["empty", "partial"])
def test_an_incomplete_root_is_refused_untouched(kaggle: Kaggle, root: Path, content: dict[str, bytes]) -> None:
    root.mkdir(parents=True)
    for name, mine in content.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(mine)
    message = refused(SOURCE, root)
    assert str(root) in message and "Move it away" in message and "dataset.root" in message
    assert ["train/NORMAL", "3", str(len(content)), str(3 - len(content)), "missing"] in [
        line.split() for line in message.splitlines()
    ]
    assert {name: (root / name).read_bytes() for name in tree(root)} == content
    assert kaggle.requests == []


def test_a_dangling_link_at_root_is_refused_untouched(kaggle: Kaggle, root: Path) -> None:
    root.parent.mkdir()
    root.symlink_to("nowhere")
    assert "exists, but is not the complete data set" in refused(SOURCE, root)
    assert os.readlink(root) == "nowhere"


def test_no_network(kaggle: Kaggle, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refuses connections
        port = closed.getsockname()[1]
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, f"http://127.0.0.1:{port}")
        message = refused(SOURCE, root)
    assert "someone/chest with kagglehub failed: the network or Kaggle could not be reached" in message
    assert f"from {SOURCE.page}, unpack it, and move its folder 'chest_xray' to {root}" in message
    assert str(port) in message
    assert nothing_laid(root)


def test_a_silent_network_does_not_hang(kaggle: Kaggle, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    send = requests.Session.send
    kaggle.silent = True
    monkeypatch.setattr(module, "READ_TIMEOUT", 0.3)
    start = time.monotonic()
    assert "could not be reached" in refused(SOURCE, root)
    assert time.monotonic() - start < 30
    assert requests.Session.send is send


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "KAGGLE_API_TOKEN"),
        (403, "KAGGLE_API_TOKEN"),
        (404, "no data set someone/chest"),
        (503, "HTTP 503"),
    ],
)
def test_kaggle_refuses(kaggle: Kaggle, root: Path, status: int, expected: str) -> None:
    kaggle.status = status
    message = refused(SOURCE, root)
    assert expected in message and f"HTTP {status}" in message and SOURCE.page in message
    assert "network" not in message.split("\n")[0]


def test_a_damaged_archive_names_the_file_to_remove(kaggle: Kaggle, root: Path) -> None:
    kaggle.archive = b"no archive at all"
    message = refused(SOURCE, root)
    archive = Path(os.environ["KAGGLEHUB_CACHE"]) / "datasets/someone/chest"
    assert "Unsupported archive type" in message and f"{archive}/*.archive" in message
    assert list(archive.glob("*.archive"))


def test_a_wrong_md5_starts_the_download_over(kaggle: Kaggle, root: Path) -> None:
    kaggle.archive, kaggle.damaged = zipped(images(SOURCE)), True
    assert "wrong MD5" in refused(SOURCE, root)
    assert nothing_laid(root)
    kaggle.damaged = False
    download(SOURCE, root)
    assert kaggle.requests[-1] == "archive from 0"


def test_a_broken_credentials_file_is_named(kaggle: Kaggle, root: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/kaggle.json").write_text("{")
    assert str(tmp_path / "home/kaggle.json") in refused(SOURCE, root)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_link(*_: object) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def test_another_file_system_gets_copies(kaggle: Kaggle, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.archive = zipped(images(SOURCE))
    monkeypatch.setattr(os, "link", no_link)
    download(SOURCE, root)
    assert len(tree(root)) == 9
    assert (root / "train/NORMAL/0.jpeg").stat().st_nlink == 1


def test_too_little_space_is_seen_before(kaggle: Kaggle, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.archive = zipped(images(SOURCE))
    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 900, 100))
    monkeypatch.setattr(shutil, "copyfile", lambda *_: pytest.fail("copied onto a full disk"))
    message = refused(SOURCE, root)
    assert "0.00 GB are free" in message and "dataset.root to a larger disk" in message
    assert nothing_laid(root)


def test_disk_full_while_laying_out(kaggle: Kaggle, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.archive = zipped(images(SOURCE))
    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(shutil, "copyfile", full_disk)
    message = refused(SOURCE, root)
    assert "No space left on device" in message and "Free some space" in message and str(root) in message
    assert nothing_laid(root)


def test_disk_full_while_downloading(kaggle: Kaggle, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kagglehub

    monkeypatch.setattr(kagglehub, "dataset_download", full_disk)
    message = refused(SOURCE, root)
    assert "No space left on device" in message and "KAGGLEHUB_CACHE" in message
    assert nothing_laid(root)


@pytest.mark.parametrize("name", ["chest_xray", "chest_xray/train/NORMAL", "chest_xray/train/NORMAL/0.jpeg"])
def test_links_out_of_the_cache_are_refused(kaggle: Kaggle, root: Path, tmp_path: Path, name: str) -> None:
    kaggle.archive = zipped(images(SOURCE))
    download(SOURCE, root)
    root.rename(tmp_path / "elsewhere")
    inside = tmp_path / "cache/datasets/someone/chest/versions/2" / name
    inside.rename(tmp_path / "moved")
    inside.symlink_to(tmp_path / "moved")
    message = refused(SOURCE, root)
    assert str(inside) in message and "Nothing was laid out" in message
    assert nothing_laid(root)


@pytest.mark.parametrize("inner", [True, False])
def test_links_in_a_tar_are_refused(kaggle: Kaggle, root: Path, inner: bool) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in images(SOURCE).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            if name.endswith("NORMAL/0.jpeg"):
                entry.type, entry.linkname = tarfile.SYMTYPE, "1.jpeg" if inner else "/etc/passwd"
            archive.addfile(entry, io.BytesIO(content))
    kaggle.archive = buffer.getvalue()
    assert ("is a link" if inner else "could not fetch or unpack") in refused(SOURCE, root)
    assert nothing_laid(root)


def test_a_zip_cannot_write_outside(kaggle: Kaggle, root: Path, tmp_path: Path) -> None:
    kaggle.archive = zipped({**images(SOURCE), "../../../../../../outside.txt": b"x", "/outside.txt": b"x"})
    download(SOURCE, root)
    assert [path for path in tmp_path.rglob("outside.txt")] == [
        tmp_path / "cache/datasets/someone/chest/versions/2/outside.txt"
    ]


def test_an_interrupt_leaves_nothing(kaggle: Kaggle, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.archive = zipped(images(SOURCE))
    link, calls = os.link, []

    def interrupted(*args: Path) -> None:
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        link(*args)

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download(SOURCE, root)
    assert nothing_laid(root)


def test_a_kill_leaves_no_root_and_the_next_run_completes(kaggle: Kaggle, root: Path) -> None:
    kaggle.archive = zipped(images(SOURCE))
    script = f"""
        import os, signal
        from kagglesdk import kaggle_env
        from xray_lightning.data.download import KaggleSource, download
        kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = {kaggle.url!r}
        link = os.link
        def killed(source, target):
            if target.name == "2.jpeg":
                os.kill(os.getpid(), signal.SIGKILL)
            link(source, target)
        os.link = killed
        download({SOURCE!r}, {str(root)!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=30)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not root.exists()
    (left,) = root.parent.iterdir()
    assert left.name.startswith("chest_xray.partial-") and tree(left)
    download(SOURCE, root)
    assert len(tree(root)) == 9


@pytest.mark.parametrize("kind", ["../../../../outside.txt", "/outside.txt", "hard link", "device", "pipe"])
def test_a_tar_cannot_write_or_link_outside(kaggle: Kaggle, root: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").write_text("secret")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in images(SOURCE).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        entry = tarfile.TarInfo(kind if "." in kind else "chest_xray/train/NORMAL/more.jpeg")
        if kind == "hard link":
            entry.type, entry.linkname = tarfile.LNKTYPE, str(tmp_path / "secret")
        elif kind in ("device", "pipe"):
            entry.type = tarfile.CHRTYPE if kind == "device" else tarfile.FIFOTYPE
        archive.addfile(entry, io.BytesIO())
    kaggle.archive = buffer.getvalue()
    if kind == "/outside.txt":  # is taken for a path below
        download(SOURCE, root)
    else:
        assert "could not fetch or unpack" in refused(SOURCE, root) and nothing_laid(root)
    assert all((tmp_path / "cache") in path.parents for path in tmp_path.rglob("outside.txt"))
    assert not Path("/outside.txt").exists() and (tmp_path / "secret").stat().st_nlink == 1
