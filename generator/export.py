"""A talker as an ONNX file, which `avatar.py` runs without torch."""

import copy
import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.avatar import KEY, About, encode_picture
from generator.networks import to_picture
from generator.talker import FewShotTalker, Folded
from thead_eval.errors import CheckpointError
from thead_eval.marking import describe_synthetic
from thead_eval.onnx_graph import trace


class AvatarGraph(nn.Module):
    """What the file computes, in float32: see avatar.py. A frame at a time, as landmarks arrive."""

    def __init__(self, folded: Folded) -> None:
        super().__init__()
        self.network = copy.deepcopy(folded).cpu()
        self.network.set_precision("32-true")
        self.eval()

    @property
    def example(self) -> Tensor:
        """An input x [1, 3 + 3C, S, S]."""
        config = self.network.config
        candidates = config.candidates if self.network.hybrid else 0
        return torch.zeros(1, 3 + 3 * candidates, config.size, config.size)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        rgb, masks, flow = self.network.trunk(x)
        if not self.network.hybrid:
            return (rgb,)
        side = self.network.config.output_size
        return rgb, F.interpolate(masks, size=(side, side), mode="bilinear"), flow


def export_avatar(talker: FewShotTalker, path: Path) -> None:
    """Write a folded talker as an avatar, whole or not at all; it is marked as synthetic.

    Raises:
        ConfigError: the packages that write ONNX are not installed.
        CheckpointError: the file could not be written.
    """
    assert isinstance(talker.network, Folded), "only a folded talker is exported"
    graph = AvatarGraph(talker.network)
    program = trace(graph, graph.example, "x")
    program.model.metadata_props[KEY] = json.dumps(describe(talker)._asdict())
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        program.save(temporary, external_data=False)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"'{path}' could not be written ({error.strerror}); choose another folder") from None


def describe(talker: FewShotTalker) -> About:
    """What the file's metadata says."""
    config, network = talker.network.config, talker.network
    assert isinstance(network, Folded)
    support = to_picture(network.pictures).permute(0, 2, 3, 1).cpu() if network.hybrid else torch.empty(0)
    return About(
        id=talker.id,
        size=config.size,
        output_size=config.output_size,
        side=talker.side,
        candidates=config.candidates if network.hybrid else 0,
        points=network.points.tolist() if network.hybrid else [],
        support=[encode_picture(picture.numpy()) for picture in support],
        generator=talker.origin.generator,
        checkpoint=talker.origin.checkpoint,
        comment=describe_synthetic(talker.origin.generator),
    )
