"""Pretrained weights: where they come from, and what is said when they cannot be had."""

import logging
import os
import pickle
import socket
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50

from xray_lightning.errors import XRayError
from xray_lightning.models.resnet50 import FrozenResNet50Classifier
from xray_lightning.models.weights import load_resnet50_weights


@pytest.fixture(scope="module")
def pretrained() -> dict[str, Tensor]:
    """A torchvision state dict, fc.* included, that differs from any fresh network's."""
    torch.manual_seed(7)
    return resnet50(weights=None).state_dict()


@pytest.fixture(scope="module")
def shared_backbone() -> nn.Module:
    network = resnet50(weights=None)
    network.fc = nn.Identity()
    return network


@pytest.fixture
def backbone(shared_backbone: nn.Module) -> nn.Module:
    nn.init.zeros_(shared_backbone.get_parameter("conv1.weight"))
    return shared_backbone


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)


def saved(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize("with_fc", [True, False])
def test_a_state_dict_file_fits_with_and_without_its_classifier(
    backbone: nn.Module, pretrained: dict[str, Tensor], tmp_path: Path, with_fc: bool
) -> None:
    state = {k: v for k, v in pretrained.items() if with_fc or not k.startswith("fc.")}
    assert load_resnet50_weights(backbone, saved(tmp_path / "weights.pth", state)) == "weights.pth"
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, pretrained[key]), key


def test_random_leaves_the_initialisation(backbone: nn.Module) -> None:
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert load_resnet50_weights(backbone, "random") == "random"
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_a_torchvision_name_is_downloaded_and_its_hash_checked(
    backbone: nn.Module, pretrained: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def download(url: str, **options: Any) -> dict[str, Tensor]:
        asked.update(options, url=url, timeout=socket.getdefaulttimeout())
        return pretrained

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    before = socket.getdefaulttimeout()
    assert load_resnet50_weights(backbone, "IMAGENET1K_V2") == "IMAGENET1K_V2"
    assert torch.equal(backbone.state_dict()["conv1.weight"], pretrained["conv1.weight"])
    assert asked["url"] == ResNet50_Weights.IMAGENET1K_V2.url and asked["check_hash"]
    assert asked["timeout"] is not None and socket.getdefaulttimeout() == before


def test_a_mistyped_name_is_answered_with_the_nearest(backbone: nn.Module) -> None:
    with pytest.raises(XRayError, match=r"IMAGENET1K_V3 is neither a file nor.*Did you mean IMAGENET1K_V"):
        load_resnet50_weights(backbone, "IMAGENET1K_V3")
    with pytest.raises(XRayError, match=r"neither a file nor.*Valid: .*IMAGENET1K_V1.*random"):
        load_resnet50_weights(backbone, "no/such/file.pth")


@pytest.mark.parametrize(
    "content",
    [
        {"conv1.weight": torch.zeros(64, 3, 7, 7)},
        {"weight": torch.zeros(3)},
        {1: torch.zeros(3)},
        {},
        {"state_dict": {"conv1.weight": torch.zeros(64, 3, 7, 7)}},
        [torch.zeros(3)],
        torch.zeros(3),
    ],
    ids=["one entry", "other names", "numbers as names", "empty", "nested", "list", "tensor"],
)
def test_a_file_that_does_not_fit_is_refused_by_name(backbone: nn.Module, tmp_path: Path, content: object) -> None:
    with pytest.raises(XRayError, match=r"model\.weights=.*other\.pth (does not fit|is not a state dict)"):
        load_resnet50_weights(backbone, saved(tmp_path / "other.pth", content))


def test_a_wrong_shape_is_named(backbone: nn.Module, pretrained: dict[str, Tensor], tmp_path: Path) -> None:
    state = pretrained | {"conv1.weight": torch.zeros(64, 1, 7, 7)}
    with pytest.raises(XRayError, match=r"does not fit.*conv1\.weight"):
        load_resnet50_weights(backbone, saved(tmp_path / "grey.pth", state))


@pytest.mark.parametrize(
    "content",
    [b"", b".", b"\x80\x02.", b"a text file\n", b"U\x10\xc1\xd0", b"\x80\x02KNN]M.", pickle.dumps([1, 2])],
    ids=["empty", "stop", "empty pickle", "text", "bytes", "half a number", "plain pickle"],
)
def test_a_damaged_file_is_an_error_of_the_user(backbone: nn.Module, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "damaged.pth"
    file.write_bytes(content)
    with pytest.raises(XRayError, match=r"model\.weights=.*damaged\.pth cannot be read"):
        load_resnet50_weights(backbone, str(file))


def test_a_truncated_file_is_an_error_of_the_user(
    backbone: nn.Module, pretrained: dict[str, Tensor], tmp_path: Path
) -> None:
    file = Path(saved(tmp_path / "whole.pth", {"conv1.weight": pretrained["conv1.weight"]}))
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(XRayError, match="cannot be read"):
        load_resnet50_weights(backbone, str(file))


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_executed(backbone: nn.Module, tmp_path: Path) -> None:
    file = saved(tmp_path / "evil.pth", {"conv1.weight": Malicious(tmp_path / "executed")})
    with pytest.raises(XRayError, match="cannot be read"):
        load_resnet50_weights(backbone, file)
    assert not (tmp_path / "executed").exists()


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_message_says_what_to_fetch_and_where_to_give_it(backbone: nn.Module) -> None:
    with pytest.raises(XRayError) as caught:
        load_resnet50_weights(backbone, "IMAGENET1K_V1")
    for part in (
        "IMAGENET1K_V1",
        "Name or service not known",
        ResNet50_Weights.IMAGENET1K_V1.url,
        "model.weights=",
        "XRAY_RESNET50_WEIGHTS",
    ):
        assert part in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_fallback_to_random_is_warned_of_and_on_the_card(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = FrozenResNet50Classifier(
            weights="IMAGENET1K_V1", fallback="random", name="resnet50", class_names=["A", "B"], image_size=32
        )
    assert model.card["weights"] == "random (fallback)"
    assert "RANDOM weights" in caplog.text and "could not be downloaded" in caplog.text


def test_the_card_names_the_weights(pretrained: dict[str, Tensor], tmp_path: Path) -> None:
    model = FrozenResNet50Classifier(
        weights=saved(tmp_path / "mine.pth", pretrained), name="resnet50", class_names=["A", "B"], image_size=32
    )
    assert model.card["weights"] == "mine.pth"


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torchvision looks for the weights IMAGENET1K_V1 before it downloads them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = ResNet50_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints" / name


def test_code_in_downloaded_weights_is_not_executed(backbone: nn.Module, downloaded: Path, tmp_path: Path) -> None:
    saved(downloaded, {"conv1.weight": Malicious(tmp_path / "executed")})
    with pytest.raises(XRayError, match="hold more than tensors") as error:
        load_resnet50_weights(backbone, "IMAGENET1K_V1")
    assert str(downloaded.parent) in str(error.value) and not (tmp_path / "executed").exists()


def test_downloaded_weights_are_read(backbone: nn.Module, downloaded: Path, pretrained: dict[str, Tensor]) -> None:
    saved(downloaded, pretrained)
    assert load_resnet50_weights(backbone, "IMAGENET1K_V1") == "IMAGENET1K_V1"
    assert torch.equal(backbone.state_dict()["conv1.weight"], pretrained["conv1.weight"])
