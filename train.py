"""Trains, validates and tests one classifier, or a sweep of them with -m. See python train.py --help."""

from omegaconf import DictConfig

from xray_lightning.cli import command


@command("train")
def main(cfg: DictConfig) -> float:
    from xray_lightning.run import train  # PyTorch takes seconds to import, which --help need not wait for

    return train(cfg)["metrics"]["accuracy"]["value"]


if __name__ == "__main__":
    main()
