"""A detector that sees no picture: codec, size, bitrate, length. What it tells apart, nobody needs a network for.

Fakes of a data set often share a codec, a size or a length that its real clips do not have, and a network that is
trained on them learns that first. This one has nothing else to learn, and so measures how much there is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from thead_eval.evidence import Item
from thead_eval.pictures import open_video

FOLDS = 5
TREES = 100
LOSSLESS = ("ffv1", "huffyuv", "rawvideo", "png", "utvideo")

# What is left of each when detectors get the clip, after `evidence.alike` and with equally many frames.
REMAINS = {
    "coding": "traces in the pixels, if the codec leaves any",
    "size": "nothing: all clips go through the smallest",
    "bits_per_pixel": "traces in the pixels: how much the codec threw away",
    "frames": "how far apart the frames lie that are taken",
    "fps": "how far apart the frames lie that are taken",
}


@dataclass(frozen=True)
class Metadata:
    """What a file says of a clip before a picture is decoded."""

    coding: str  # container, codec and pixel format
    size: int  # pixels a side
    bits_per_pixel: float  # NaN of a lossless file, where they are what is in the pictures, and no setting
    frames: int
    fps: float


def read_metadata(item: Item) -> Metadata:
    """Of a file, or of a clip of a prepared dataset.

    Raises:
        MediaError: the file cannot be opened.
    """
    if item.clip:
        bits = 8 * _bytes_per_frame(item.path)[item.clip] / item.size**2
        return Metadata("jpeg in a dataset", item.size, bits, item.frames, item.fps)
    path = Path(item.path)
    with open_video(path) as (container, stream):
        codec, pixels = stream.codec_context.name, str(stream.codec_context.pix_fmt)
        coding = f"{container.format.name} {codec} {pixels}"
        frames = stream.frames or _count_packets(container, stream)
        bits = 8 * path.stat().st_size / max(frames, 1) / (stream.width * stream.height)
    return Metadata(coding, item.size, np.nan if codec in LOSSLESS else bits, item.frames, item.fps)


def _count_packets(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Of a container that does not say how many frames it holds; nothing is decoded."""
    return sum(1 for packet in container.demux(stream) if packet.size)


@cache
def _bytes_per_frame(dataset: str) -> Mapping[str, float]:
    frames = pd.read_parquet(f"{dataset}/frames.parquet", columns=["clip", "size"])
    return dict(frames.groupby("clip")["size"].mean())


class MetadataDetector:
    """Random trees over the metadata of the clips that it was fitted on; for clips of `Item`, not for frames."""

    name = "metadata"

    def __init__(self, seed: int = 0) -> None:
        from sklearn.ensemble import ExtraTreesClassifier
        from sklearn.feature_extraction import DictVectorizer
        from sklearn.pipeline import Pipeline, make_pipeline

        # Balanced, as there can be many fakes of each real clip; leaves of three, so that no clip is learnt by heart.
        trees = ExtraTreesClassifier(TREES, min_samples_leaf=3, class_weight="balanced", random_state=seed)
        self.pipeline: Pipeline = make_pipeline(DictVectorizer(sparse=False), trees)

    def fit(self, rows: Sequence[Metadata], fake: NDArray[np.bool_]) -> "MetadataDetector":
        """Learn from these clips, of which there must be real ones and fakes."""
        self.pipeline.fit([_features(row) for row in rows], fake)
        return self

    def logits(self, rows: Sequence[Metadata]) -> NDArray[np.float32]:
        """[N] of these clips."""
        p = self.pipeline.predict_proba([_features(row) for row in rows])[:, 1]
        given: NDArray[np.float32] = logit(p.clip(0.001, 0.999)).astype(np.float32)
        return given


def cross_validated(
    rows: Sequence[Metadata], fake: NDArray[np.bool_], identities: Sequence[str], seed: int
) -> NDArray[np.float64]:
    """[N] p(fake) of each clip by a detector that has seen none of its person's; NaN where a fold lacked a class."""
    people = np.unique(list(identities))
    shuffled = np.random.default_rng(seed).permutation(people)
    p = np.full(len(rows), np.nan)
    for part in np.array_split(shuffled, min(FOLDS, len(people))):
        held = np.isin(list(identities), part)
        if len(np.unique(fake[~held])) < 2:
            continue
        known = [row for row, is_held in zip(rows, held, strict=True) if not is_held]
        detector = MetadataDetector(seed).fit(known, fake[~held])
        asked = [row for row, is_held in zip(rows, held, strict=True) if is_held]
        p[held] = expit(detector.logits(asked).astype(np.float64))
    return p


def _features(row: Metadata) -> dict[str, Any]:  # Any: numbers and a word
    fields = asdict(row)
    lossless = bool(np.isnan(row.bits_per_pixel))
    return fields | {"lossless": lossless, "bits_per_pixel": 0.0 if lossless else row.bits_per_pixel}
