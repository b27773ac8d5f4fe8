import inspect
import string
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from xray_lightning.arguments import check_arguments
from xray_lightning.config import CONF, auto_precision, dotted_keys, plain, slug
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.errors import XRayError, did_you_mean

SAFE = set(string.ascii_letters + string.digits + "_.+=-")


@given(st.text(max_size=300))
@example("0" * 61)
def test_a_slug_is_one_folder_name(text: str) -> None:
    name = slug(text)
    assert name and len(name) <= 80 and "/" not in name and not name.startswith((".", "-"))
    assert slug(name) == name


@given(st.text(alphabet=sorted(SAFE), min_size=1, max_size=40).filter(lambda t: t.strip("-.") == t))
def test_a_plain_name_is_its_own_slug(text: str) -> None:
    assert slug(text) == text


def test_long_values_that_differ_late_have_different_slugs() -> None:
    assert slug("a" * 200 + "1") != slug("a" * 200 + "2")


def test_a_list_is_readable_in_a_name() -> None:
    assert slug([16, 32, 64]) == "16-32-64"


def test_dotted_keys_name_every_level() -> None:
    cfg = OmegaConf.create({"a": {"b": 1, "c": {"d": "${a.b}"}}, "e": None})
    assert list(dotted_keys(cfg)) == ["a", "a.b", "a.c", "a.c.d", "e"]


def test_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert auto_precision("auto") == "16-mixed"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert auto_precision("gpu") == "bf16-mixed"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False}, raising=False)
    assert auto_precision("cpu") == auto_precision("mps") == "32-true"


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bf16-mixed"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "32-true"),
        ({"cpu_name": "AMD EPYC 9654", "avx512_bf16": True, "amx_bf16": False}, "bf16-mixed"),
        ({"cpu_name": "AMD EPYC 7763", "avx512_bf16": False, "amx_bf16": False}, "32-true"),
        ({"avx512_bf16": True, "amx_bf16": False}, "32-true"),
        ({"architecture": "aarch64", "bf16": True}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_processors_compute_in_bfloat16_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert auto_precision("auto") == auto_precision("cpu") == precision


def test_a_pytorch_that_cannot_tell_the_processor_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert auto_precision("cpu") == "32-true"


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "torch.optim.AdamW", "_partial_": True, "lrr": 1}, "Did you mean lr"),
        ({"_target_": "torch.optim.AdamW", "_partial_": True, "weight_decay": "much"}, "Expected float"),
        ({"_target_": "torch.optim.AdamX"}, "cannot be imported"),
        ({"_target_": "xray_lightning.models.cnn.CNNClassifier", "label_smooting": 0.1}, "label_smoothing"),
        ({"_target_": "xray_lightning.models.cnn.CNNClassifier", "label_smoothing": "x"}, "Expected float"),
        ({"_target_": "xray_lightning.data.covid.CovidDataModule", "balance": "loss"}, "weighted_loss"),
        ({"_target_": "xray_lightning.data.covid.CovidDataModule", "resize": "padded"}, "Did you mean pad"),
        ({"_target_": "xray_lightning.data.covid.CovidDataModule", "cache": True}, "on, off|off, on"),
        ({"_target_": "xray_lightning.data.covid.CovidDataModule", "split_file": ["a.csv"]}, "Expected str"),
    ],
)
def test_arguments_are_checked_against_constructors(node: dict[str, object], message: str) -> None:
    with pytest.raises(XRayError, match=message):
        check_arguments(OmegaConf.create({"outer": node}))


@pytest.mark.parametrize("dataset", ["pneumonia", "covid"])
def test_every_argument_of_a_data_module_is_a_key_with_its_default(
    configure: Callable[..., DictConfig], dataset: str
) -> None:
    chosen = plain(configure(f"dataset={dataset}").dataset)
    arguments = inspect.signature(XRayDataModule).parameters
    assert set(arguments) - set(chosen) <= {"test_fraction"}
    choices = ("cache", "resize", "split", "validation", "split_file", "on_leak", "on_bad_image", "balance")
    for key in (*choices, "val_fraction"):
        assert chosen[key] == arguments[key].default


def test_every_key_of_the_configuration_has_a_comment() -> None:
    bare = []
    for file in CONF.rglob("*.yaml"):
        if "hydra" in file.relative_to(CONF).parts:
            continue
        for line in file.read_text().splitlines():
            key, colon, rest = line.strip().partition(":")
            is_value = (
                colon and rest.strip() and not key.startswith(("#", "-")) and key not in ("_target_", "_partial_")
            )
            if is_value and "#" not in rest:
                bare.append(f"{file.relative_to(CONF)}: {key}")
    assert not bare


@pytest.mark.parametrize(
    ("typed", "valid", "advice"),
    [
        ("model.lr", ["model.optimizer.lr", "model.name"], "Did you mean model.optimizer.lr"),
        ("modle", ["model", "callbacks.mode"], "Did you mean model"),
        ("zzz", ["a", "b"], "Valid: a, b."),
    ],
)
def test_advice_names_what_is_near_or_all_there_is(typed: str, valid: list[str], advice: str) -> None:
    assert did_you_mean(typed, valid).startswith(advice)
