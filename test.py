"""Scores a checkpoint on the test images of its own training. See python test.py --help."""

from omegaconf import DictConfig

from xray_lightning.cli import command


@command("test")
def main(cfg: DictConfig) -> float:
    if cfg.cascade.screen or cfg.cascade.diagnose:
        from xray_lightning.cascade import cascade

        return cascade(cfg)["test"]["all"]["systems"]["cascade"]["accuracy"]["value"]
    from xray_lightning.run import test  # PyTorch takes seconds to import, which --help need not wait for

    return test(cfg)["metrics"]["accuracy"]["value"]


if __name__ == "__main__":
    main()
