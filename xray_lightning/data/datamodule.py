"""The data module that every data set shares."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, ClassVar, Literal
from weakref import finalize

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor

from xray_lightning.data.augment import CropRotateJitter
from xray_lightning.data.batches import Batch, BatchLoader, RowSampler, share
from xray_lightning.data.catalog import SYNTHETIC_MARKER, Entry, Layout, MissingFolders, Radiograph, list_images
from xray_lightning.data.collection import Collection, collect, refuse_empty_sides, refuse_leaks, report_bad
from xray_lightning.data.decode import LARGEST_SIDE, Resize
from xray_lightning.data.download import KaggleSource
from xray_lightning.data.pixels import ImageFiles, Images, PixelPlan, load_pixels
from xray_lightning.data.split_file import read_split
from xray_lightning.data.splits import ALL, SIDES, TEST, TRAIN, UNUSED, VAL, known_test, leaked, leaks, split
from xray_lightning.errors import XRayError, did_you_mean, folder_errors


class XRayDataModule(LightningDataModule):
    """Folders of radiographs as batches: (B, 1, S, S) uint8 and (B,) int64, S being `image_size` in pixels.

    A data set derives from this and says where its images lie; see `PneumoniaDataModule`. With two classes
    the second is the positive one.
    """

    layout: Layout
    kaggle: KaggleSource | None = None
    published_test: ClassVar[int] = 0  # images in the test set of the original study
    reference: ClassVar[Mapping[str, Mapping[str, float]]] = {}  # its scores, by model

    def __init__(
        self,
        name: str,
        root: str,
        image_size: int,
        cache_dir: str,
        cache: Literal["on", "off"] = "on",
        classes: Sequence[str] | None = None,
        resize: Resize = "stretch",
        batch_size: int = 32,
        eval_batch_size: int = 128,
        seed: int = 0,
        split_seed: int = 0,
        val_fraction: float = 0.15,
        test_fraction: float | None = None,
        split: Literal["grouped", "reference"] = "grouped",
        validation: Literal["random", "block"] = "random",
        split_file: str | None = None,
        on_leak: Literal["refuse", "warn"] = "refuse",
        on_bad_image: Literal["stop", "skip"] = "stop",
        balance: Literal["none", "weighted_loss", "sampling"] = "none",
        augment: CropRotateJitter | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.root = Path(root)
        self.image_size = image_size
        self.cache = cache
        if cache == "off":
            cache_dir = mkdtemp(prefix="xray-lightning-")
            finalize(self, rmtree, cache_dir, ignore_errors=True)
        self.cache_dir = Path(cache_dir)
        self.resize = resize
        self.class_names = self._chosen(classes)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.split_seed = split_seed
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split = split
        self.validation = validation
        self.split_file = Path(split_file) if split_file else None
        self.on_leak = on_leak
        self.on_bad_image = on_bad_image
        self.balance = balance
        self.augment = augment
        self.scored: str | None = None  # a side of the split, or all: nothing is trained, and that is the test side
        self.known_test: Sequence[str] | None = None  # its images, of a checkpoint's own split
        self.leaked: dict[str, int] = {}  # images of val and test that share a group with what comes before them
        self.collection: Collection | None = None
        self._ready = False
        self._drawn: tuple[tuple[int, int, int], Tensor] | None = None
        for key, value in (
            ("image_size", image_size),
            ("batch_size", batch_size),
            ("eval_batch_size", eval_batch_size),
        ):
            if value < 1:
                raise XRayError(f"dataset.{key}={value} is not valid. Give a whole number of at least 1.")
        if image_size > LARGEST_SIDE:
            raise XRayError(f"dataset.image_size={image_size} is not valid. Give up to {LARGEST_SIDE} pixels.")
        if odd := [text for text in (name, *self.class_names) if not text or not text.isprintable()]:
            raise XRayError(
                f"{odd[0]!r} cannot name a data set or a class: use letters that can be printed. Rename the folder, or "
                "say with dataset.folders which class it holds."
            )
        for key, part in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if part is not None and not 0 < part < 1:
                raise XRayError(f"dataset.{key}={part} is not valid. Give a share between 0 and 1, such as 0.15.")

    def _chosen(self, classes: Sequence[str] | None) -> list[str]:
        known = list(self.layout.folders)
        chosen = known if classes is None else list(classes)
        for name in chosen:
            if name not in known:
                raise XRayError(f"dataset.classes has '{name}', which is no class here. {did_you_mean(name, known)}")
        if len(set(chosen)) < max(2, len(chosen)):
            raise XRayError(f"dataset.classes={chosen} must name two or more different classes of {known}.")
        return chosen

    def entries(self) -> list[Entry]:
        """What the data set consists of, sorted by path. Raises MissingFolders where it is not there."""
        return list_images(self.root, self.layout, self.class_names)

    def catalog(self, plan: PixelPlan | None = None) -> None:
        """Examines the files and splits them, without decoding what is not needed for that.

        Raises XRayError for folders, files or a split that cannot be used.
        """
        try:
            with folder_errors():
                entries = self.entries()
        except MissingFolders as error:
            raise XRayError(f"{error}\n{self._how_to_get()}") from error
        self.collection = collect(self.root, entries, self.cache_dir, plan)
        report_bad(self.root, self.collection, self.on_bad_image)
        self.rows = self.collection.rows
        self.labels = np.array([row.label for row in self.rows], dtype=np.int64)
        self.sides = self._split() if self.scored is None else self._scored_sides()
        if self.scored is not None:
            return
        refuse_leaks(
            leaks(self.rows, self.sides),
            self.sides,
            expected=self.split == "reference" and self.split_file is None,
            told=self.on_leak == "warn",
        )
        self.leaked = leaked(self.rows, self.sides)

    def _scored_sides(self) -> list[str]:
        if self.known_test is not None:
            return known_test(self.rows, self.known_test)
        if self.scored == ALL:
            return [TEST] * len(self.rows)
        return [TEST if side == self.scored else UNUSED for side in self._split()]

    def strata(self) -> list[Radiograph]:
        """The rows with the labels by which the split is stratified: their own."""
        return self.rows

    def _split(self) -> list[str]:
        if self.split_file is not None:
            return read_split(self.split_file, self.rows)
        return split(
            self.strata(),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.split_seed,
            grouped=self.split == "grouped",
            blocks=self.validation == "block",
        )

    def setup(self, stage: str | None = None) -> None:
        """Makes the catalog and loads the images, once. Raises XRayError for what cannot be used."""
        if self._ready:
            return
        plan = PixelPlan(self.root, self.image_size, self.resize, self.cache_dir / "pixels")
        self.catalog(plan if self.cache == "on" else None)
        if self.scored is None:
            refuse_empty_sides(self.root, self.counts())
        self.fingerprint = plan.fingerprint([row.digest for row in self.rows])
        self.images: Images
        if self.cache == "on":
            self.images = load_pixels(plan, self.rows)[:, None]
        else:
            self.images = ImageFiles(plan, self.rows)
        self.inputs: Images = self.images
        self.train_inputs: Images = self.images
        self._ready = True

    def _how_to_get(self) -> str:
        root = self.root if self.root.is_absolute() else f"{self.root} (in {Path.cwd()})"
        lines = [f"Looked for the {self.name} images in {root}."]
        if self.kaggle is not None:
            lines[0] += " To get them:"
            lines += [
                f"  python -m xray_lightning.data.download dataset={self.name}",
                f"or fetch {self.kaggle.page} by hand and unpack it so that this folder exists,",
                "or say where they are: XRAY_DATA=<folder above it>, or dataset.root=<folder>.",
            ]
        return "\n".join([*lines, "To try the program without data: make demo"])

    def rows_of(self, side: str) -> np.ndarray:
        """Positions in the catalog of the images on one side of the split, int64."""
        return np.flatnonzero([s == side for s in self.sides])

    @property
    def synthetic(self) -> bool:
        """Whether the images are phantoms, which every output then says."""
        return (self.root.parent / SYNTHETIC_MARKER).is_file()

    def class_weights(self) -> list[float] | None:
        """For the loss: n / (classes * n of the class), mean 1 over training images; None unless asked for."""
        if self.balance != "weighted_loss":
            return None
        counts = np.bincount(self.labels[self.rows_of(TRAIN)], minlength=len(self.class_names))
        return (counts.sum() / (len(counts) * counts)).tolist()

    def counts(self) -> dict[str, dict[str, int]]:
        """Images of each class on each side of the split, or on the one that is scored."""
        named = {side: side for side in (*SIDES, *[UNUSED] * (UNUSED in self.sides))}
        return {
            name: {
                name: int((self.labels[self.rows_of(side)] == label).sum())
                for label, name in enumerate(self.class_names)
            }
            for name, side in (named if self.scored is None else {self.scored: TEST}).items()
        }

    def train_dataloader(self) -> BatchLoader:
        rows = self.rows_of(TRAIN)
        versions = {"versions": len(self.train_inputs) // len(self.rows), "apart": len(self.rows)}
        weights = None
        if self.balance == "sampling":
            labels = self.labels[rows]
            weights = 1 / np.bincount(labels)[labels]
        return self._loader(self.train_inputs, rows, self.batch_size, seed=self.seed, weights=weights, **versions)

    def val_dataloader(self) -> BatchLoader:
        return self._loader(self.inputs, self.rows_of(VAL), self.eval_batch_size)

    def test_dataloader(self) -> BatchLoader:
        return self._loader(self.inputs, self.rows_of(TEST), self.eval_batch_size)

    def _loader(self, inputs: Images, rows: np.ndarray, batch_size: int, **sampling: Any) -> BatchLoader:
        device, rank, world = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            device, rank, world = self.trainer.strategy.root_device, self.trainer.global_rank, self.trainer.world_size
        if batch_size < 2 * world and world > 1:
            raise XRayError(
                f"A batch of {batch_size} images cannot be shared by {world} processes: set dataset.batch_size and "
                f"dataset.eval_batch_size, which count the images of all, to {2 * world} or more."
            )
        return BatchLoader(inputs, self.labels, RowSampler(rows, **sampling), batch_size, device, rank, world)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augments training images, on the device. Features pass as they are."""
        inputs, labels = batch
        training = self.trainer is not None and self.trainer.training
        if self.augment is not None and training and inputs.ndim == 4 and len(inputs):
            inputs = self.augment(inputs, self._draws(self.augment, inputs.device))
        return inputs, labels

    def _draws(self, augment: CropRotateJitter, device: torch.device) -> Tensor:
        """The random numbers of this process's images in the batch that comes next."""
        assert self.trainer is not None
        start = (self.trainer.fit_loop.batch_idx + 1) * self.batch_size
        whole = self._drawn_for_epoch(augment, device)[start : start + self.batch_size]
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return whole if world == 1 else whole[torch.from_numpy(share(len(whole), rank, world)).to(device)]

    def _drawn_for_epoch(self, augment: CropRotateJitter, device: torch.device) -> Tensor:
        """Those of all training images, in the order in which they come, a function of seed and epoch alone."""
        assert self.trainer is not None
        key = (self.seed, self.trainer.current_epoch, 0)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = key, augment.draws(len(self.rows_of(TRAIN)), *key).to(device)
        return self._drawn[1]
