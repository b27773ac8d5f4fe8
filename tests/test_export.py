"""ONNX files: the same function as the checkpoint, with all that is needed to use them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from onnx.onnx_pb import TensorProto

import xray_lightning.export as module
from xray_lightning import load
from xray_lightning.config import CONF, register_resolvers
from xray_lightning.errors import XRayError
from xray_lightning.export import export
from xray_lightning.run import train

INT8 = TensorProto.INT8
Configure = Callable[..., DictConfig]
MODELS = {
    "cnn": ["model=cnn"],
    "resnet50": ["model=resnet50", "model.weights=random", "model.views=0", "model.hidden=8"],
}


def asked(checkpoint: Path, phantoms: Path, *more: str) -> DictConfig:
    register_resolvers()
    root = phantoms / "chest_xray"
    words = [f"ckpt={checkpoint}", f"dataset.root={root}", f"paths.cache={checkpoint.parent / 'cache'}", "check=20"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("export", [*words, *more])


@pytest.fixture
def trained(configure: Configure, tmp_path: Path) -> Path:
    train(configure("model=cnn", "trainer.max_epochs=2", run="trained"))
    return tmp_path / "trained/checkpoints/best.ckpt"


@pytest.mark.parametrize("name", MODELS)
def test_the_file_gives_the_probabilities_of_the_checkpoint(
    name: str, configure: Configure, phantoms: Path, tmp_path: Path
) -> None:
    train(configure(*MODELS[name], "dataset.image_size=48", "trainer.precision=32-true", run="trained"))
    checkpoint = tmp_path / "trained/checkpoints/best.ckpt"
    (file,) = export(asked(checkpoint, phantoms))
    assert file == checkpoint.with_suffix(".onnx")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    stage = load(checkpoint).stages[0]
    images = np.random.default_rng(0).integers(0, 256, (7, 1, 48, 48), dtype=np.uint8)
    for count in (1, 3, 7):
        (found,) = session.run(None, {"images": images[:count]})
        assert found.shape == (count, 2) and np.allclose(found.sum(axis=1), 1, atol=1e-6)
        # random weights hardly tell images apart, so that standardised features make much of their rounding
        near = 1e-4 if name == "cnn" else 0.02
        assert np.allclose(found, stage.judge(images[:count]).probabilities, atol=near)


def test_the_file_tells_what_it_is(trained: Path, phantoms: Path, tmp_path: Path) -> None:
    (file,) = export(asked(trained, phantoms, f"output={tmp_path / 'my film.onnx'}"))
    graph = onnx.load(file)
    told = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(told["classes"]) == ["NORMAL", "PNEUMONIA"] and told["image_size"] == "32"
    assert "not a medical device" in " ".join(told.values()) and "sensitivity_95" in told["operating_points"]
    assert not [node for node in graph.graph.node if node.op_type == "BatchNormalization"]


def test_int8_is_smaller_and_close(trained: Path, phantoms: Path) -> None:
    file, int8 = export(asked(trained, phantoms, "int8=true"))
    assert int8.stat().st_size < file.stat().st_size
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 32, 32), dtype=np.uint8)
    runs = [onnxruntime.InferenceSession(str(f), providers=["CPUExecutionProvider"]) for f in (file, int8)]
    a, b = (run.run(None, {"images": images})[0] for run in runs)
    assert np.abs(a - b).max() < 0.3
    weights = [onnx.numpy_helper.to_array(w) for w in onnx.load(int8).graph.initializer if w.data_type == INT8]
    # larger ones overflow on processors without VNNI instructions: the file would give other answers there
    assert max(np.abs(w.astype(int)).max() for w in weights) == 64


def test_a_file_that_differs_is_not_written(trained: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DIFFERENCE", -1.0)
    with pytest.raises(XRayError, match="differ"):
        export(asked(trained, phantoms))
    assert not list(trained.parent.glob("*.onnx*"))


@pytest.mark.parametrize(
    "word, told",
    [("format=onx", "Did you mean onnx"), ("check=0", "at least 1"), ("ckpt=[a,b]", "one checkpoint")],
)
def test_what_cannot_be_meant_is_told(phantoms: Path, tmp_path: Path, word: str, told: str) -> None:
    with pytest.raises(XRayError, match=told):
        export(asked(tmp_path / "none.ckpt", phantoms, word))


def test_images_that_are_asked_for_must_be_there(trained: Path, phantoms: Path) -> None:
    with pytest.raises(XRayError, match="/gone"):
        export(asked(trained, phantoms, "dataset.root=/gone"))


def test_without_its_libraries_it_says_what_to_install(
    trained: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(XRayError, match=r"pip install .*xray-lightning\[export\]"):
        export(asked(trained, phantoms))


def test_without_its_images_it_is_compared_on_generated_ones(
    trained: Path, phantoms: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg: Any = asked(trained, phantoms, "dataset.root=null")
    cfg.ckpt = str(_without_images(trained))
    assert export(cfg)[0].is_file() and "generated" in caplog.text


def _without_images(checkpoint: Path) -> Path:
    """A copy whose training images lay in a folder that is gone."""
    content = torch.load(checkpoint, weights_only=True)
    content["xray_lightning"]["data"]["arguments"]["root"] = "/gone"
    moved = checkpoint.with_name("moved.ckpt")
    torch.save(content, moved)
    return moved
