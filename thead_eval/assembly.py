"""The parts that worker processes made, put together as a dataset; and what a finished one holds.

Apart from prepare.py because this needs torch and pandas, whose memory the workers should have while they run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from thead_eval.data import DatasetInfo, PreparedClip, RejectedSource, open_dataset, write_dataset
from thead_eval.errors import ConfigError, DatasetError
from thead_eval.parts import Job, read_part
from thead_eval.sources import Source
from thead_eval.types import Landmarks


def assemble(out: Path, sources: list[Source], jobs: list[Job], info: dict[str, Any]) -> None:  # Any: JSON
    """Write the dataset of all parts, in the order of the sources. With no clip, only the reasons are written."""
    rows = (row for source, job in zip(sources, jobs, strict=True) for row in _rows(source, job))
    try:
        write_dataset(out, rows, DatasetInfo.model_validate(info))
    except DatasetError:
        if any(read_part(job).clips for job in jobs):
            raise


def reasons_of(out: Path, sources: list[Source]) -> tuple[list[str | None], int, int]:
    """Of a finished dataset: each source's reason, None where it was prepared; the number of clips and of frames.

    Raises:
        ConfigError: it was not made of these sources.
        DatasetError: it is damaged.
    """
    dataset = open_dataset(out)
    rows = pd.concat([dataset.clips, dataset.rejected])
    columns = (rows[name] for name in ("source", "identity", "label", "split"))
    held = {(file, who.partition("~")[0], label, split) for file, who, label, split in zip(*columns, strict=True)}
    asked = {(source.file, source.identity, source.label, source.split) for source in sources}
    if held != asked:
        file, identity, label, split = min(held ^ asked)
        same = {row[0] for row in held} == {row[0] for row in asked}
        which = "these videos, but of other splits, people or labels" if same else "other videos"
        raise ConfigError(
            f"'{out}' is a finished dataset of {which}: '{file}' as {label} of '{identity}' in {split} is only in one "
            "of the two; give another folder"
        )
    rejected = dataset.rejected.to_dict("records")
    reasons = {row["source"]: row["reason"] for row in rejected}
    return [reasons.get(source.file) for source in sources], len(dataset.clips), int(dataset.clips["frames"].sum())


def _rows(source: Source, job: Job) -> Iterator[PreparedClip | RejectedSource]:
    """The dataset's rows of one source: its clips, or why there are none."""
    part = read_part(job)
    if part.reason is not None:
        yield RejectedSource(
            source.file, part.sha256, source.identity, source.label, source.split, part.reason, part.detail
        )
        return
    with np.load(job.part(".npz")) as arrays:
        for n, row in enumerate(part.clips):
            points = torch.from_numpy(arrays[f"points{n}"])
            x, y, side = row["crop"]
            yield PreparedClip(
                id=source.name if len(part.clips) == 1 else f"{source.name}~{n + 1}",
                identity=f"{source.identity}~{row['person']}" if row["person"] else source.identity,
                source=source.file,
                source_sha256=part.sha256,
                label=source.label,
                split=source.split,
                fps=part.fps,
                first_frame=row["first_frame"],
                crop_box=(x, y, x + side, y + side),
                jpegs=_jpegs(job.part(f".{n}.jpegs"), arrays[f"sizes{n}"].tolist()),
                landmarks=Landmarks(points, torch.ones(len(points), dtype=torch.bool)),
            )


def _jpegs(file: Path, sizes: list[int]) -> Iterator[bytes]:
    with file.open("rb") as contents:
        for size in sizes:
            yield contents.read(size)
