"""Learning-rate schedules that know how long training will be."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Rises linearly over the share `warmup` of all steps, then falls to zero as half a cosine.

    Source: Loshchilov and Hutter, "SGDR", 2017 (without restarts).
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.1) -> None:
        rising = max(1, round(warmup * total_steps))
        falling = max(1, total_steps - rising)

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 * (1 + math.cos(math.pi * min(1, (step - rising) / falling)))

        super().__init__(optimizer, factor)
