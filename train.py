"""Trains, validates and tests one classifier, or a sweep of them with -m. See python train.py --help."""

from omegaconf import DictConfig

from xray_lightning.cli import command


@command("train")
def main(cfg: DictConfig) -> float:
    """What a search for hyper-parameters minimises: the log-loss on validation, for nothing may be chosen on test."""
    from xray_lightning.run import train  # PyTorch takes seconds to import, which --help need not wait for

    return train(cfg)["validation"]["log_loss"]


if __name__ == "__main__":
    main()
