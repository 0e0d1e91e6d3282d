"""A logit from a few numbers: a logistic regression, kept as tensors."""

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

FARTHEST = 4.0  # deviations from the mean: a number beyond has not been learnt from


class Line(nn.Module):
    """A logit from numbers that are brought to mean 0 and deviation 1."""

    strengths: ClassVar[tuple[float, ...]] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the fit, its C: validation chooses

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.register_buffer("weight", torch.zeros(count))
        self.register_buffer("bias", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D], on any device, to [...]; NaN where one of the numbers is."""
        mean, scale, weight, bias = (self.get_buffer(name) for name in ("mean", "scale", "weight", "bias"))
        logits: Tensor = ((x.to(mean.device) - mean) / scale).clamp(-FARTHEST, FARTHEST) @ weight + bias
        return logits

    def fit(
        self, numbers: NDArray[np.float64], fake: NDArray[np.bool_], weights: NDArray[np.float64], strength: float
    ) -> None:
        """Fit to rows [N, D] without NaN."""
        mean, scale = numbers.mean(axis=0), numbers.std(axis=0)
        scale[scale == 0] = 1.0
        x = ((numbers - mean) / scale).clip(-FARTHEST, FARTHEST)
        line = LogisticRegression(C=strength, max_iter=1000).fit(x, fake, weights)
        for name, value in (("mean", mean), ("scale", scale), ("weight", line.coef_[0]), ("bias", line.intercept_)):
            self.get_buffer(name).copy_(torch.from_numpy(np.asarray(value)))
