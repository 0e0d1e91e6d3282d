"""A talker as an ONNX file, which `avatar.py` runs without torch."""

import copy
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.avatar import KEY, About
from generator.networks import to_network, to_picture
from generator.talker import FewShotTalker, Folded
from generator.warp import spline_nodes
from thead_eval.errors import CheckpointError, ConfigError
from thead_eval.marking import describe_synthetic

OPSET = 18  # the first with the Resize and the GridSample that F.interpolate and F.grid_sample need


class AvatarGraph(nn.Module):
    """What the file computes, in float32: frames [B, O, O, 3] uint8 from drawn landmarks y [B, S, S, 3] uint8, and of
    the hybrid from which support frames [B, C] to bend by which nodes."""

    support: Tensor

    def __init__(self, folded: Folded) -> None:
        super().__init__()
        self.network = copy.deepcopy(folded).cpu()
        self.network.set_precision("32-true")
        self.register_buffer("support", to_picture(self.network.pictures) if folded.hybrid else torch.empty(0))
        self.eval()

    def forward(self, y: Tensor, chosen: Tensor | None = None, nodes: Tensor | None = None) -> Tensor:
        network, drawn = self.network, to_network(y.permute(0, 3, 1, 2))
        if chosen is None or nodes is None:
            return to_picture(network.paint(drawn)).permute(0, 2, 3, 1)
        pictures = to_network(self.support[chosen])  # [B, C, 3, O, O]
        side = network.config.size
        seen = F.avg_pool2d(pictures.flatten(0, 1), network.config.output_size // side)
        frames = network.bend_and_paint(drawn, pictures, seen.view(*chosen.shape, 3, side, side), nodes)
        return to_picture(frames).permute(0, 2, 3, 1)


def export_avatar(talker: FewShotTalker, path: Path) -> None:
    """Write a folded talker as an avatar, whole or not at all; it is marked as synthetic.

    Raises:
        ConfigError: the packages that write ONNX are not installed.
        CheckpointError: the file could not be written.
    """
    try:
        import onnxscript  # noqa: F401  # torch's exporter stands on it
    except ImportError:
        raise ConfigError(
            "exporting needs the packages onnx and onnxscript; run 'pip install \"theval[export]\"'"
        ) from None
    assert isinstance(talker.network, Folded), "only a folded talker is exported"
    graph = AvatarGraph(talker.network)
    inputs = example_inputs(graph.network)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own deprecations, about which a user can do nothing
        program: Any = torch.onnx.export(  # Any: torch says that it may be None, which it is not with `dynamo`
            graph,
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs),
            input_names=list(inputs),
            output_names=["frames"],
            opset_version=OPSET,
            verbose=False,
        )
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
    hybrid = config.output == "hybrid"
    return About(
        id=talker.id,
        size=config.size,
        output_size=config.output_size,
        side=talker.side,
        candidates=config.candidates if hybrid else 0,
        points=network.points.tolist() if hybrid else [],
        generator=talker.origin.generator,
        checkpoint=talker.origin.checkpoint,
        comment=describe_synthetic(talker.origin.generator),
    )


def example_inputs(network: Folded) -> dict[str, Tensor]:
    """Two frames' worth of what the graph takes, by name: the number is free afterwards."""
    config = network.config
    inputs = {"y": torch.zeros(2, config.size, config.size, 3, dtype=torch.uint8)}
    if network.hybrid:
        inputs["chosen"] = torch.zeros(2, config.candidates, dtype=torch.int64)
        points = network.points[inputs["chosen"][:, : max(config.candidates - 1, 1)]]
        inputs["nodes"] = spline_nodes(points, points[:, 0], (config.output_size, config.output_size))
    return inputs
