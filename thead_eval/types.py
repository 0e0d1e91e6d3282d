"""The values that the parts of theval hand each other, and the protocols that plug-ins satisfy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_POINTS = 68  # the iBUG 300-W mark-up


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of one person.

    Raises:
        ValueError: frames are not uint8 [T, 3, H, W].
    """

    id: str
    frames: Tensor  # [T, 3, H, W] uint8 RGB
    fps: float

    def __post_init__(self) -> None:
        if self.frames.dtype != torch.uint8 or self.frames.ndim != 4 or self.frames.shape[1] != 3:
            raise ValueError(f"clip '{self.id}': frames must be uint8 [T, 3, H, W], not {describe(self.frames)}")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames.shape[2], self.frames.shape[3]

    def take(self, indices: Sequence[int]) -> "Clip":
        """The frames at these indices, in this order."""
        return Clip(self.id, self.frames[list(indices)], self.fps)


@dataclass(frozen=True)
class Landmarks:
    """68 points a frame; NaN where no face was found, so that a use of them by mistake shows.

    Raises:
        ValueError: points are not float32 [T, 68, 2], or found is not bool [T].
    """

    points: Tensor  # [T, 68, 2] float32; x, y in pixels of the frame, x to the right, y down, 0 = first pixel's centre
    found: Tensor  # [T] bool

    def __post_init__(self) -> None:
        if self.points.dtype != torch.float32 or self.points.shape[1:] != (NUM_POINTS, 2):
            raise ValueError(f"landmarks must be float32 [T, 68, 2], not {describe(self.points)}")
        if self.found.dtype != torch.bool or self.found.shape != self.points.shape[:1]:
            raise ValueError(f"found must be bool [{len(self.points)}], not {describe(self.found)}")

    def __len__(self) -> int:
        return len(self.points)

    def take(self, indices: Sequence[int]) -> "Landmarks":
        """The points of the frames at these indices, in this order."""
        return Landmarks(self.points[list(indices)], self.found[list(indices)])


@dataclass(frozen=True)
class FewShotSet:
    """One identity's support frames, to adapt on, and target frames, to reproduce.

    Support and target never overlap, and lie apart in time or in different videos. Every frame has landmarks.
    """

    identity: str
    support: Clip
    support_landmarks: Landmarks
    target: Clip
    target_landmarks: Landmarks

    def take(self, shots: int) -> "FewShotSet":
        """The same set with its first `shots` support frames: 1 shot is among the 8, the 8 are among the 32.

        Raises:
            ValueError: there are fewer support frames than that.
        """
        if not 1 <= shots <= len(self.support):
            raise ValueError(f"identity '{self.identity}' has {len(self.support)} support frames, {shots} were asked")
        first = range(shots)
        return FewShotSet(
            self.identity,
            self.support.take(first),
            self.support_landmarks.take(first),
            self.target,
            self.target_landmarks,
        )


# Generators and detectors. A plug-in's entry point names a factory: a callable that takes the device.


class Talker(Protocol):
    """A generator adapted to one person."""

    def animate(self, driving: Landmarks, fps: float) -> Clip:
        """A frame per driving row, at the generator's own size; `driving` is in pixels of the support frames."""
        ...


Tell = Callable[[int, int], None]  # what is done, of how many at most


class FewShotGenerator(Protocol):
    """Makes a Talker from a few frames of a person, and stays as it was."""

    @property
    def name(self) -> str: ...

    def adapt(self, support: Clip, landmarks: Landmarks) -> Talker: ...


@runtime_checkable
class Telling(Protocol):
    """A generator that takes its time over a person, and can say how far it is."""

    def telling(self, tell: Tell) -> FewShotGenerator: ...


@runtime_checkable
class Compiling(Protocol):
    """A generator whose talkers can go through torch.compile, which takes time and may save some."""

    def compiling(self) -> FewShotGenerator: ...


class Detector(Protocol):
    """Scores each frame of a clip: frames from all over a video or, with an attribute `window`, so many in a row."""

    @property
    def name(self) -> str: ...

    def score(self, clip: Clip) -> Tensor:
        """[T] float32 in 0..1, 1 = fake; NaN where a frame could not be scored."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A detector that can say of whom it has learnt."""

    def knows(self, identity: str) -> bool:
        """Whether it was trained or validated on this person."""
        ...


GeneratorFactory = Callable[[torch.device], FewShotGenerator]
DetectorFactory = Callable[[torch.device], Detector]


# Feature networks and metrics. `load` is where files are read; building these values does nothing.

Features = NDArray[np.float32]  # [T, ...] a row per frame; NaN rows where the frame gave none
FrameValues = NDArray[np.float64]  # [T]; NaN where a frame could not be scored

# ([B, 3, H, W] uint8 RGB, [B, 68, 2] float32 landmarks in its pixels, NaN where no face, or None) -> [B, ...] float32
ExtractFunction = Callable[[Tensor, Tensor | None], Tensor]
# (fake, real), both [B, 3, H, W] uint8 RGB of one size -> [B] float64, NaN where a pair could not be scored
CompareFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FeatureNetwork:
    """A frozen network that turns frames into one vector each, and owns its preprocessing."""

    name: str
    shape: tuple[int, ...]  # of one frame's feature
    summary: str  # network, weights' origin, resize and normalisation, in one sentence
    load: Callable[[torch.device], ExtractFunction]  # raises WeightsMissing
    weights: tuple[str, ...] = ()  # names in weights.py that `load` reads
    uses_landmarks: bool = False  # aligned by the 'dlib68' landmarks; NaN rows where there are none


@dataclass(frozen=True)
class PixelMetric:
    """Judges a fake frame against its real one by their pixels."""

    name: str
    higher_is_better: bool | None  # None: the nearer to 0 the better
    unit: str
    summary: str  # every setting that the name fixes
    load: Callable[[torch.device], CompareFunction]  # raises WeightsMissing
    weights: tuple[str, ...] = ()
    minimum_size: int = 1  # smallest side in pixels that it can judge


@dataclass(frozen=True)
class FeatureMetric:
    """Judges a fake clip against its real one by features of the two, a value per frame."""

    name: str
    higher_is_better: bool | None  # None: the nearer to 0 the better
    unit: str
    summary: str
    features: tuple[str, ...]  # names of the feature networks it reads
    compare: Callable[[Mapping[str, Features], Mapping[str, Features]], FrameValues]  # (fake, real) of one length
    undefined_ends: int = 0  # frames at each end of a clip that have no value by definition, and are no failures


class FeatureSet(NamedTuple):
    """Features of many clips, with the identity that each row belongs to. No NaN."""

    features: NDArray[np.float32]  # [N, D]; may be a memory map
    identities: NDArray[np.int64]  # [N]; rows of one identity share a number


@dataclass(frozen=True)
class SetMetric:
    """Judges the set of all fake frames against the set of all real ones."""

    name: str
    higher_is_better: bool | None  # None: the nearer to 0 the better
    unit: str
    summary: str
    feature: str  # name of the feature network it reads
    distance: Callable[[FeatureSet, FeatureSet], float]  # (fake, real)
    minimum_frames: int  # below these the value depends on their number, and a warning says so
    minimum_identities: int


Metric = PixelMetric | FeatureMetric | SetMetric


def describe(x: Tensor) -> str:
    """Dtype and shape, for an error message."""
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
