"""Lightning's progress bar without what tells a reader nothing."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class TrainingBar(RichProgressBar):
    """Shows losses and metrics, but not the end of the logger's version, which is the same in every run."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
