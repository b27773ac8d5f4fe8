"""PyTorch files that somebody prepared: nothing in them runs, and none takes more memory than it has bytes."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from xray_lightning.models.plain import Unreadable, read_plain


class Reduced:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def saved(tmp_path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, tmp_path / "a.pt", **options)
    return tmp_path / "a.pt"


def doubling(content: Any, times: int) -> Any:
    for _ in range(times):
        content = [content, content]
    return content


def holding_itself() -> list[Any]:
    ring: list[Any] = [1]
    ring.append(ring)
    return ring


def recompressed(path: Path) -> Path:
    target = path.with_suffix(".ckpt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in source.infolist():
            archive.writestr(member.filename, source.read(member))
    return target


@pytest.mark.parametrize("old", [False, True])
def test_plain_data_come_back_as_they_were(tmp_path: Path, old: bool) -> None:
    content = {"a": [1, -2.5, None, True, "ü", (3, "b")], 7: {"w": torch.arange(6.0).view(2, 3)}, "n": float("inf")}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=not old)
    back = read_plain(path)
    assert torch.equal(back[7].pop("w"), content[7].pop("w"))  # type: ignore[index, union-attr]
    assert back == content


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "call",
    [
        lambda folder: Reduced(os.mkdir, str(folder)),
        lambda folder: Reduced(os.system, f"mkdir {folder}"),
        lambda folder: Reduced(eval, f"__import__('os').mkdir({str(folder)!r})"),
        lambda folder: Reduced(exec, f"import os; os.mkdir({str(folder)!r})"),
        lambda folder: Reduced(torch.load, str(folder)),
    ],
    ids=["mkdir", "system", "eval", "exec", "load"],
)
def test_code_is_not_executed(tmp_path: Path, call: Callable[[Path], Any], old: bool) -> None:
    path = saved(tmp_path, {"a": call(tmp_path / "executed")}, _use_new_zipfile_serialization=not old)
    with pytest.raises(Unreadable, match="more than tensors and plain data"):
        read_plain(path)
    assert not (tmp_path / "executed").exists()


def test_a_pickle_alone_is_not_executed(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Reduced(os.mkdir, str(tmp_path / "executed"))))
    with pytest.raises(Unreadable):
        read_plain(tmp_path / "a.pt")
    assert not (tmp_path / "executed").exists()


def test_a_program_of_torchscript_is_not_read(tmp_path: Path) -> None:
    class Adds(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is an old format
        torch.jit.save(torch.jit.trace(Adds(), torch.zeros(1)), tmp_path / "a.pt")
    with pytest.raises(Unreadable):
        read_plain(tmp_path / "a.pt")


def test_what_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = recompressed(saved(tmp_path, {"a": torch.zeros(2**22)}))
    assert path.stat().st_size < 2**17
    with pytest.raises(Unreadable, match="unpack to more"):
        read_plain(path)


@pytest.mark.parametrize(
    "content",
    [
        {"a": torch.zeros(1).expand(2**40)},
        {"a": torch.zeros(4).as_strided((2**20, 2**20), (0, 0))},
        doubling([1], 64),
        doubling((torch.zeros(9),), 64),
        {"a": doubling({}, 40)},
        holding_itself(),
        [holding_itself()] * 9,
    ],
    ids=["expanded", "strided", "doubled", "doubled tensors", "doubled dicts", "ring", "rings"],
)
def test_what_claims_to_hold_more_than_its_file_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(Unreadable, match="unpack to more"):
        read_plain(saved(tmp_path, content))


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(3, 3).to_sparse(),
        torch.zeros(3, device="meta"),
        bytearray(3),
        {1, 2},
        2j,
        torch.float32,
        torch.Size([1]),
        2**70,
        -(10**5000),
    ],
    ids=["sparse", "meta", "bytes", "set", "complex", "type", "size", "long", "very long"],
)
def test_other_values_than_plain_ones_are_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(Unreadable):
        read_plain(saved(tmp_path, {"a": [value]}))
