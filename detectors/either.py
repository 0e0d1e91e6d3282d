"""A logit from several detectors' logits, where a fake is one as soon as one of them knows it: a noisy or; and how much
a detector counts in it."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor, nn

from thead_eval.errors import TrainingFailed

PENALTY = 0.01  # on squared distances of weights from 1, beside the mean log-loss
FARTHEST = 5.0  # deviations that fakes may lie above real clips: of a few people there are none to show more


class Either(nn.Module):
    """A frame is real where nobody has a reason: P(real) is the product of sigmoid(-(weight x + bias)) over detectors.

    A line would let the one that does not know a generator, and is sure of what it sees, speak against the one that
    does. Here it can only say nothing. The noisy or of Pearl (Probabilistic Reasoning, 1988, section 4.3.2).
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(count))
        self.register_buffer("bias", torch.zeros(count))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [...]; NaN where one of the logits is."""
        weight = self.get_buffer("weight")
        reasons = F.softplus(x.to(weight.device) * weight + self.get_buffer("bias")).sum(-1)  # -log P(real)
        # log(exp(r) - 1), of which float32 leaves nothing where r is small: there it is log r + r / 2.
        small = reasons.clamp(min=1e-30).log() + reasons / 2
        return torch.where(reasons < 1e-3, small, torch.log(torch.expm1(reasons.clamp(1e-3, 60))))

    def draw(self, numbers: NDArray[np.float64], fake: NDArray[np.bool_], weights: NDArray[np.float64]) -> None:
        """Fit to rows [N, D] without NaN, by the log-loss; no detector's weight below 0.

        A minimum, found from equal weights: there may be others.

        Raises:
            TrainingFailed: none was found.
        """
        count = numbers.shape[1]
        share = weights / weights.sum()

        def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weight, bias = values[:count], values[count:]
            line = numbers * weight + bias
            whole = np.logaddexp(0, line).sum(axis=1)
            reasons = whole.clip(1e-6, 60)
            of_fake = -np.log(-np.expm1(-reasons))
            value = (share * np.where(fake, of_fake, reasons)).sum() + PENALTY * np.square(weight - 1).sum()
            of_reasons = share * np.where(fake, -1 / np.expm1(reasons), 1.0)
            of_reasons *= whole == reasons  # where it is clipped, nothing changes it
            of_line = of_reasons[:, None] * expit(line)
            of_weight = (of_line * numbers).sum(axis=0) + 2 * PENALTY * (weight - 1)
            return float(value), np.concatenate([of_weight, of_line.sum(axis=0)])

        start = np.concatenate([np.ones(count), np.full(count, -1.0)])
        bounds = [(0, None)] * count + [(None, None)] * count
        found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
        # A search that stops early for rounding has found something too.
        if not (np.isfinite(found.x).all() and np.isfinite(found.fun)):
            raise TrainingFailed(
                f"no rule was found for {count} detectors on {len(fake)} windows ({found.message}); look at each alone "
                "with 'theval detect eval'"
            )
        self.get_buffer("weight").copy_(torch.from_numpy(found.x[:count]))
        self.get_buffer("bias").copy_(torch.from_numpy(found.x[count:]))


def weigh(logits: NDArray[np.float64], fake: NDArray[np.bool_], weights: NDArray[np.float64]) -> tuple[float, float]:
    """(a, b) that make a detector's logits x of clips a x + b: log p(x | fake) / p(x | real), by two normal curves.

    Both are as wide as the real ones lie apart, and the fakes' centre is the weighted mean of those that the detector
    has learnt to know. So what counts is how far somebody stands out among real people. How much a detector is to be
    believed, fitted to the fakes at hand by `Either.draw`, held less for others: of 30 videos of five families, each
    family left out in turn, AUC was .82 by that and .84 by this.

    Args:
        logits: [N] of real clips and fakes, none of them NaN.
        fake: [N]
        weights: [N], of which those of fakes count.
    """
    reals = logits[~fake]
    middle = reals.mean()
    beyond = np.average(logits[fake], weights=weights[fake]) - middle
    if beyond <= 0:
        return 0.0, -30.0  # a reason against nobody
    width = max(reals.std(), beyond / FARTHEST)
    apart = beyond / width
    return float(apart / width), float(-apart * middle / width - apart**2 / 2)
