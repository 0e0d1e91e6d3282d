"""A logit from a few numbers, where a line does not do: a few small networks of scikit-learn, kept as tensors."""

import warnings
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn

from detectors.linear import FARTHEST

HIDDEN = (32, 16)
PASSES = 150  # over what is learnt from


class Perceptrons(nn.Module):
    """The mean logit of five networks that differ in where they started."""

    strengths: ClassVar = (0.3, 1.0, 3.0, 10.0)  # of the fit: one over the penalty on large weights

    def __init__(self, count: int, networks: int = 5) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        for n, (before, after) in enumerate(zip((count, *HIDDEN), (*HIDDEN, 1), strict=True)):
            self.register_buffer(f"weight_{n}", torch.zeros(networks, before, after))
            self.register_buffer(f"bias_{n}", torch.zeros(networks, 1, after))

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] to [N], there where the weights are; NaN where one of the numbers is."""
        mean = self.get_buffer("mean")
        out = ((x.to(mean.device) - mean) / self.get_buffer("scale")).clamp(-FARTHEST, FARTHEST)
        for n in range(len(HIDDEN) + 1):
            out = torch.relu(out) if n else out
            out = out @ self.get_buffer(f"weight_{n}") + self.get_buffer(f"bias_{n}")  # [networks, N, after]
        return out.mean(dim=(0, 2))

    def fit(
        self, numbers: NDArray[np.float64], fake: NDArray[np.bool_], weights: NDArray[np.float64], strength: float
    ) -> None:
        """Fit to rows [N, D] without NaN."""
        mean, scale = numbers.mean(axis=0), numbers.std(axis=0)
        scale[scale == 0] = 1.0
        x = ((numbers - mean) / scale).clip(-FARTHEST, FARTHEST)
        self.get_buffer("mean").copy_(torch.from_numpy(mean))
        self.get_buffer("scale").copy_(torch.from_numpy(scale))
        for seed in range(len(self.get_buffer("bias_0"))):
            network = MLPClassifier(HIDDEN, alpha=1 / strength, max_iter=PASSES, random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # so many passes are enough
                network.fit(x, fake, sample_weight=weights)
            for n, (weight, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
                self.get_buffer(f"weight_{n}")[seed] = torch.from_numpy(weight)
                self.get_buffer(f"bias_{n}")[seed, 0] = torch.from_numpy(bias)
