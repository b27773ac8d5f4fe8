"""What every classifier shares: loss, validation metrics, optimiser and schedule."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.nn import functional as F

from xray_lightning.data.batches import BatchLoader, RowSampler
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.metrics import SCALARS, scalar_metrics
from xray_lightning.models.cnn import CNNClassifier
from xray_lightning.models.schedule import WarmupCosine

Arrays = tuple[np.ndarray, np.ndarray]


def uneven(count: int = 21) -> Arrays:
    """Images of noise, whose labels come in runs, so that batches differ from the whole."""
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (count, 1, 32, 32), dtype=np.uint8)
    return images, np.sort(generator.permutation(count) % 3 == 0).astype(np.int64)


@pytest.mark.parametrize("weights", [None, [0.4, 2.5]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_the_weighted_smoothed_cross_entropy(
    make_cnn: Callable[..., CNNClassifier],
    fit: Callable[..., Trainer],
    weights: list[float] | None,
    smoothing: float,
) -> None:
    images, labels = uneven()
    model = make_cnn(class_weights=weights, label_smoothing=smoothing)
    with torch.no_grad():
        logits = model(torch.from_numpy(images))
    expected = F.cross_entropy(
        logits,
        torch.from_numpy(labels),
        weight=None if weights is None else torch.tensor(weights),
        label_smoothing=smoothing,
    )
    trainer = fit(model, images, labels, max_steps=1, batch_size=len(labels))
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def one_step(model: CNNClassifier, monkeypatch: pytest.MonkeyPatch, images: Tensor, labels: Tensor) -> Tensor:
    monkeypatch.setattr(model, "log", lambda *args, **options: None)  # which a trainer would take
    return model.training_step((images, labels), 0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("weights", "smoothing"), [(None, 0.0), ([0.4, 2.5], 0.2)])
def test_mixup_takes_images_and_targets_in_the_same_shares(
    make_cnn: Callable[..., CNNClassifier],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    weights: list[float] | None,
    smoothing: float,
) -> None:
    model = make_cnn(mixup=0.4, class_weights=weights, label_smoothing=smoothing)
    images, labels = map(torch.from_numpy, uneven(8))
    torch.manual_seed(seed)
    share = torch.distributions.Beta(0.4, 0.4).sample().item()
    torch.manual_seed(seed)
    found = one_step(model, monkeypatch, images, labels).item()

    pixels = images.numpy().astype(np.float64)
    with torch.no_grad():
        logits = model(torch.from_numpy(share * pixels + (1 - share) * pixels[::-1])).double()
    lost, w = -logits.log_softmax(dim=1).numpy(), np.array(weights or [1.0, 1.0])

    def loss(targets: np.ndarray) -> float:
        shares = (1 - smoothing) * np.eye(2)[targets] + smoothing / 2
        return float((shares * w * lost).sum() / w[targets].sum())

    expected = share * loss(labels.numpy()) + (1 - share) * loss(labels.numpy()[::-1])
    assert 0 < share < 1 and found == pytest.approx(expected, rel=1e-4)


def test_without_mixup_nothing_is_drawn_and_with_it_gradients_reach_every_parameter(
    make_cnn: Callable[..., CNNClassifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = map(torch.from_numpy, uneven(8))
    plain = make_cnn()
    state = torch.get_rng_state()
    expected = F.cross_entropy(plain(images), labels)
    assert torch.equal(one_step(plain, monkeypatch, images, labels), expected)
    assert torch.equal(torch.get_rng_state(), state)
    mixed = make_cnn(mixup=1.0)
    one_step(mixed, monkeypatch, images, labels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mixed.parameters())


def test_mixup_is_of_training_alone(make_cnn: Callable[..., CNNClassifier], fit: Callable[..., Trainer]) -> None:
    images, labels = uneven()
    model = make_cnn(mixup=0.4)
    trainer = fit(model, images, labels, max_epochs=1)
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(images))
    expected = F.cross_entropy(logits, torch.from_numpy(labels)).item()
    assert trainer.callback_metrics["val/log_loss"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("mixup", [-0.1, 1e-9, float("nan"), float("inf")])
def test_a_mixup_that_cannot_be_is_refused(make_cnn: Callable[..., CNNClassifier], mixup: float) -> None:
    with pytest.raises(XRayError, match=r"^model\.mixup="):
        make_cnn(mixup=mixup)


def test_validation_metrics_are_of_the_whole_set_not_means_of_batches(
    make_cnn: Callable[..., CNNClassifier], fit: Callable[..., Trainer]
) -> None:
    images, labels = uneven()
    model = make_cnn()
    trainer = fit(model, images, labels, max_epochs=2, batch_size=4)
    with torch.no_grad():
        probabilities = model.eval()(torch.from_numpy(images)).softmax(dim=1)
    expected = scalar_metrics(probabilities, torch.from_numpy(labels))
    logged = {k.removeprefix("val/"): v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    assert logged.keys() == set(SCALARS)
    assert logged == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-4, abs=1e-5)


def test_test_metrics_hold_every_probability_in_order(
    make_cnn: Callable[..., CNNClassifier], fit: Callable[..., Trainer]
) -> None:
    images, labels = uneven()
    model = make_cnn()
    trainer = fit(model, images, labels, max_steps=1)
    loader = BatchLoader(images, labels, RowSampler(np.arange(len(labels))), 4)
    for _ in range(2):
        trainer.test(model, loader, verbose=False)
    probabilities, scored = model.test_metrics.gathered()
    assert scored.tolist() == labels.tolist()
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(images)).double().softmax(dim=1)
    np.testing.assert_allclose(probabilities, expected.numpy(), rtol=1e-5)


def test_schedule_spans_the_training_step_by_step(
    make_cnn: Callable[..., CNNClassifier], fit: Callable[..., Trainer], bright_and_dark: Arrays
) -> None:
    model = make_cnn(optimizer=partial(torch.optim.SGD, lr=0.1), scheduler=partial(WarmupCosine, warmup=0.5))
    trainer = fit(model, *bright_and_dark, max_epochs=3, batch_size=8)
    assert trainer.global_step == 6
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_saved_arguments_are_plain_data_without_what_only_training_needs(
    make_cnn: Callable[..., CNNClassifier],
) -> None:
    kept = dict(make_cnn(class_weights=[1.0, 2.0]).hparams)
    assert not kept.keys() & {"optimizer", "scheduler", "class_weights"}
    assert kept["class_names"] == ["NORMAL", "PNEUMONIA"] and kept["image_size"] == 32
