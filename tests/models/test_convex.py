"""The head that is solved for: the minimum, the path of strengths, and its place in Lightning's training."""

import logging
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from xray_lightning.data.batches import BatchLoader, RowSampler
from xray_lightning.errors import XRayError
from xray_lightning.models.checkpoint import load_classifier, read_checkpoint
from xray_lightning.models.convex import ConvexResNet50Classifier, Solution, TrainingRows, fit_softmax
from xray_lightning.run import test as score
from xray_lightning.run import train

Arrays = tuple[np.ndarray, np.ndarray]
CPU = torch.device("cpu")
STEPS = 3
WIDTH = 2048  # features of the last stage
make = partial(
    ConvexResNet50Classifier,
    name="resnet50_convex",
    class_names=["A", "B"],
    image_size=32,
    l2_range=[10.0, 0.1],
    l2_steps=STEPS,
)


def rows(classes: int = 2, count: int = 60, width: int = 8) -> TrainingRows:
    """Correlated features on very different scales, of classes that overlap."""
    generator = np.random.default_rng(classes)
    labels = np.sort(np.arange(count) % (classes + 1) % classes)  # the first class has the most rows
    features = generator.normal(size=(count, width)) @ generator.normal(size=(width, width)) + labels[:, None]
    features = 5 + features * np.logspace(-2, 2, width)
    return TrainingRows([(torch.from_numpy(features), torch.from_numpy(labels))], classes, CPU)


def solve(data: TrainingRows, l2: float = 0.01, start: tuple[Tensor, Tensor] | None = None, **more: Any) -> Solution:
    return fit_softmax(data.features, data.labels, start or data.head, l2=l2, **{"tolerance": 1e-8} | more)


@pytest.mark.parametrize("l2", [1.0, 0.01])
@pytest.mark.parametrize(("classes", "weights"), [(2, None), (2, [0.5, 3.0]), (4, None), (4, [0.5, 1.0, 2.0, 4.0])])
def test_is_the_solution_of_scikit_learn(classes: int, weights: list[float] | None, l2: float) -> None:
    data = rows(classes)
    ours = solve(data, l2, class_weights=None if weights is None else torch.tensor(weights).double())

    sample_weights = np.ones(len(data.labels)) if weights is None else np.array(weights)[data.labels]
    # scikit-learn's loss is a sum. Of two classes it has one weight vector, the difference of ours: half the penalty
    strength = l2 * sample_weights.sum() / (2 if classes == 2 else 1)
    theirs = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000)
    theirs.fit(data.features.numpy(), data.labels.numpy(), sample_weight=sample_weights)

    weight = ours.weight[1:] - ours.weight[:1] if classes == 2 else ours.weight
    np.testing.assert_allclose(weight, theirs.coef_, rtol=1e-4, atol=1e-6)
    probabilities = F.linear(data.features, ours.weight, ours.bias).softmax(dim=1)
    np.testing.assert_allclose(probabilities, theirs.predict_proba(data.features.numpy()), atol=1e-6)


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 4.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_nothing_is_left_to_descend(weights: list[float] | None, smoothing: float) -> None:
    data, l2, w = rows(3), 0.01, torch.tensor(weights or [1.0] * 3).double()
    solution = solve(data, l2, class_weights=None if weights is None else w, label_smoothing=smoothing)

    shares = ((1 - smoothing) * F.one_hot(data.labels, 3).double() + smoothing / 3) * w / w[data.labels].sum()
    weight, bias = solution.weight.requires_grad_(), solution.bias.requires_grad_()
    loss = -(shares * F.linear(data.features, weight, bias).log_softmax(dim=1)).sum()
    (loss + l2 / 2 * weight.square().sum()).backward()
    assert weight.grad is not None and bias.grad is not None
    slope = max(weight.grad.abs().max().item(), bias.grad.abs().max().item())
    assert slope == pytest.approx(solution.slope, abs=1e-10) and slope < 2e-8
    assert solution.loss == pytest.approx(loss.item(), abs=1e-10)


def test_the_start_changes_only_how_long_it_takes() -> None:
    data = rows(4)
    cold, near = solve(data, 0.01), solve(data, 0.012)
    warm, again = solve(data, 0.01, near[:2]), solve(data, 0.01, cold[:2])
    torch.testing.assert_close(warm[:2], cold[:2], rtol=0, atol=1e-5)
    assert again.iterations == 0 < warm.iterations < cold.iterations


def test_the_order_of_rows_and_their_batches_change_nothing() -> None:
    data = rows()
    features = data.features * data.std + data.mean
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    batches = list(zip(features[order].split(7), data.labels[order].split(7), strict=True))
    torch.testing.assert_close(solve(TrainingRows(batches, 2, CPU))[:2], solve(data)[:2], rtol=0, atol=1e-6)


def test_the_raw_head_gives_the_same_logits_and_takes_features_that_never_vary() -> None:
    raw = (rows().features[:, :4] * torch.tensor([0, 1e-3, 1, 30]) + torch.tensor([7, 0.1, 2, 100])).half()
    data = TrainingRows([(raw, rows().labels)], 2, CPU)
    assert data.features.dtype == torch.float64 and (data.features[:, 0] == 0).all()
    torch.testing.assert_close(data.features[:, 1:].square().mean(dim=0), torch.ones(3).double())
    data.head = solve(data)[:2]
    logits = F.linear(raw.double(), *data.raw_head())
    torch.testing.assert_close(logits, F.linear(data.features, *data.head))
    assert (data.head[0][:, 0] == 0).all() and logits.std() > 0.1


def test_a_feature_that_hardly_varies_counts_for_less() -> None:
    """Divided by its own deviation it would decide where it is of ordinary size, as it never was in training."""
    data = rows()
    raw = data.features.clone()
    raw[:, 0] = 0
    raw[3, 0] = 2e-3
    seldom = TrainingRows([(raw, data.labels)], 2, CPU)
    seldom.head = solve(seldom, 1e-3)[:2]
    weight, _ = seldom.raw_head()
    assert 0 < weight[:, 0].abs().max() < weight[:, 1:].abs().max()


@pytest.fixture(scope="module")
def shared() -> ConvexResNet50Classifier:
    return make(class_weights=[0.7, 1.4], label_smoothing=0.1)


@pytest.fixture
def model(shared: ConvexResNet50Classifier) -> Iterator[ConvexResNet50Classifier]:
    """One backbone for all tests, with a new head for each."""
    shared.head[-1].reset_parameters()  # type: ignore[operator]
    before = deepcopy({key: getattr(shared, key) for key in ("card", "strengths", "max_iterations")})
    yield shared
    vars(shared).update(before)


@pytest.fixture(scope="module")
def data() -> Arrays:
    """Features (30, WIDTH) float16 and labels of two classes, of which the first has two thirds."""
    generator = np.random.default_rng(0)
    labels = (np.arange(30) % 3 == 0).astype(np.int64)
    features = generator.gamma(2, size=(30, WIDTH)) * generator.gamma(2, size=WIDTH)
    features[labels == 1, :40] *= 1.5
    return features.astype(np.float16), labels


class Diary(Callback):
    """What each epoch ended with."""

    def __init__(self) -> None:
        self.l2: list[float] = []
        self.log_loss: list[float] = []
        self.heads: list[tuple[Tensor, Tensor]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.l2.append(pl_module.card["l2"])
        self.log_loss.append(trainer.callback_metrics["val/log_loss"].item())
        self.heads.append(tuple(p.detach().clone() for p in pl_module.head[-1].parameters()))


@pytest.fixture
def follow(fit: Callable[..., Trainer], data: Arrays) -> Callable[..., tuple[Trainer, Diary]]:
    def run(model: ConvexResNet50Classifier, **options: Any) -> tuple[Trainer, Diary]:
        diary = Diary()
        options = {"max_epochs": 10, "gradient_clip_val": 1.0, "callbacks": [diary]} | options
        return fit(model, *data, **options), diary

    return run


Follow = Callable[..., tuple[Trainer, Diary]]


def test_each_epoch_has_the_minimum_for_one_strength_and_then_training_ends(
    model: ConvexResNet50Classifier, follow: Follow, data: Arrays
) -> None:
    backbone = deepcopy(model.backbone.state_dict())
    trainer, diary = follow(model)
    assert diary.l2 == pytest.approx([10.0, 1.0, 0.1])
    assert (trainer.current_epoch, trainer.global_step) == (STEPS, 4 * STEPS)
    everything = TrainingRows([(torch.from_numpy(data[0]), torch.from_numpy(data[1]))], 2, CPU)
    for l2, head in zip(diary.l2, diary.heads, strict=True):
        cold = solve(everything, l2, class_weights=torch.tensor([0.7, 1.4]).double(), label_smoothing=0.1)
        everything.head = cold[:2]
        for ours, expected in zip(head, everything.raw_head(), strict=True):
            torch.testing.assert_close(ours, expected.float(), rtol=1e-4, atol=1e-5)
    assert trainer.callback_metrics["train/l2"].item() == pytest.approx(0.1)
    assert trainer.callback_metrics["train/epoch_loss"].item() == pytest.approx(cold.loss, rel=1e-4)
    assert all(torch.equal(value, backbone[key]) for key, value in model.backbone.state_dict().items())


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_clip_val": 1e-6},
        {"precision": "bf16-mixed"},
        {"batch_size": 30},
        {"batch_size": 7, "accumulate_grad_batches": 3},
        {"batch_size": 30, "limit_train_batches": 1},
    ],
    ids=str,
)
def test_how_the_trainer_steps_does_not_touch_the_solution(
    model: ConvexResNet50Classifier, follow: Follow, options: dict[str, Any]
) -> None:
    plain, other = follow(model)[1], follow(model, **options)[1]
    torch.testing.assert_close(other.heads, plain.heads, rtol=1e-4, atol=1e-6)


def test_the_checkpoint_holds_the_strength_that_validation_chose(
    model: ConvexResNet50Classifier, follow: Follow, data: Arrays, complete: dict[str, Any], tmp_path: Path
) -> None:
    model.card |= complete
    diary, keep = Diary(), ModelCheckpoint(tmp_path, "best", monitor="val/log_loss")
    model.strengths = [100.0, 0.1, 1000.0]
    follow(model, enable_checkpointing=True, callbacks=[diary, keep])
    assert int(np.argmin(diary.log_loss)) == 1
    best = load_classifier(tmp_path / "best.ckpt")
    assert isinstance(best, ConvexResNet50Classifier) and best.card["l2"] == 0.1
    features = torch.from_numpy(data[0])
    assert torch.equal(best(features), F.linear(features.float(), *diary.heads[1]))
    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    assert torch.equal(best.embed(images), model.embed(images))
    content = read_checkpoint(tmp_path / "best.ckpt")
    assert content["state_dict"].keys() == model.state_dict().keys()


def test_rows_are_kept_for_the_time_of_training_alone(model: ConvexResNet50Classifier, follow: Follow) -> None:
    class Stop(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            assert pl_module._rows is not None and not pl_module._kept
            assert not any("_rows" in key or "_kept" in key for key in pl_module.state_dict())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        follow(model, callbacks=[Stop()])
    assert model._rows is None and not model._kept
    follow(model)
    assert model._rows is None and not model._kept
    assert torch.equal(deepcopy(model).head[-1].weight, model.head[-1].weight)  # type: ignore[arg-type]


def test_epochs_beyond_the_path_repeat_its_end(model: ConvexResNet50Classifier, follow: Follow) -> None:
    diary = follow(model, min_epochs=STEPS + 1)[1]
    assert diary.l2 == pytest.approx([10.0, 1.0, 0.1, 0.1])
    assert torch.equal(diary.heads[-1][0], diary.heads[-2][0])


def test_what_keeps_the_path_from_its_end_is_told(
    model: ConvexResNet50Classifier, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    follow(model)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert follow(model, max_epochs=2)[1].l2 == pytest.approx([10.0, 1.0])
    assert "trainer.max_epochs=2 leaves out the weakest of model.l2_steps=3" in caplog.text
    model.max_iterations = 1
    follow(model)
    assert "Raise model.tolerance or model.max_iterations" in caplog.text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"l2_range": [1.0]}, r"model\.l2_range=\[1\.0\] is not valid"),
        ({"l2_range": [1.0, 0.0]}, "two strengths"),
        ({"l2_range": [0.1, 1.0]}, "the greater one first"),
        ({"l2_range": [float("nan"), 1.0]}, "two strengths"),
        ({"l2_steps": 0}, r"model\.l2_steps=0 is not valid"),
        ({"max_iterations": 0}, r"model\.max_iterations=0 is not valid"),
        ({"tolerance": 0.0}, r"model\.tolerance=0\.0 is not valid"),
        ({"dropout": 0.1}, r"model\.dropout is for model=resnet50"),
        ({"feature_dropout": 0.1}, r"model\.feature_dropout is for"),
        ({"hidden": 8}, r"model\.hidden is for"),
        ({"mixup": 0.4}, r"model\.mixup is for"),
        ({"optimizer": partial(torch.optim.SGD, lr=1.0)}, r"model\.optimizer is for"),
        ({"cache_features": False}, r"model\.cache_features is for"),
    ],
)
def test_what_has_no_meaning_is_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(XRayError, match=message):
        make(**value)


def test_the_head_is_linear_on_the_features_of_all_stages() -> None:
    model, images = make(stages=[1, 2]), torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    features = model.embed(images)
    assert [type(layer) for layer in model.head] == [torch.nn.Linear] and features.shape == (2, 256 + 512)
    assert torch.equal(model(images), F.linear(features, *model.head[-1].parameters()))


def test_rows_that_are_not_all_there_are_refused(
    model: ConvexResNet50Classifier, data: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = BatchLoader(*data, RowSampler(np.arange(30), seed=0, weights=np.ones(30)), 8)
    for trainer, message in (
        (SimpleNamespace(world_size=2), r"trainer\.devices=1"),
        (SimpleNamespace(world_size=1, train_dataloader=drawn), r"dataset\.balance=sampling.*weighted_loss"),
    ):
        monkeypatch.setattr(ConvexResNet50Classifier, "trainer", trainer)
        with pytest.raises(XRayError, match=message):
            model.on_train_start()


def test_a_run_solves_scores_and_scores_again(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    cfg = configure("model=resnet50_convex", "model.weights=random", "trainer.max_epochs=20", "model.l2_steps=4")
    assert cfg.model.optimizer is None and cfg.model.scheduler is None
    record = train(cfg)
    ckpt = tmp_path / "run/checkpoints/best.ckpt"
    assert load_classifier(ckpt).card["l2"] in make(l2_range=[10.0, 1e-3], l2_steps=4).strengths
    again = score(configure(f"ckpt={ckpt}", config="test", run="again"))
    assert again["metrics"] == record["metrics"]


@pytest.mark.parametrize("cut", ["limit_train_batches=2", "val_check_interval=0.5", "check_val_every_n_epoch=2"])
def test_a_run_without_all_rows_or_a_validation_after_each_epoch_is_refused(
    configure: Callable[..., DictConfig], cut: str
) -> None:
    with pytest.raises(XRayError, match=r"every training batch, and a validation"):
        train(configure("model=resnet50_convex", "model.weights=random", f"+trainer.{cut}"))


def test_a_run_with_rows_drawn_by_chance_is_refused(configure: Callable[..., DictConfig]) -> None:
    with pytest.raises(XRayError, match=r"dataset\.balance=sampling"):
        train(configure("model=resnet50_convex", "model.weights=random", "dataset.balance=sampling"))
