"""Which support frames a driving frame is offered, and where in them its pixels lie; for the hybrid output of G.

Candidate 0 is the nearest support frame, 1 the next nearest and so on, each bent onto the driving landmarks by a
thin-plate spline; the last one is the nearest again as it is: what does not move with the head is right there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from generator.networks import NetworkConfig
from generator.warp import fill_between, spline_nodes


def choose(support_points: Tensor, driving_points: Tensor, config: NetworkConfig) -> Tensor:
    """Indices [T, C] of the support rows [K, 68, 2] to offer for each driving row [T, 68, 2], none of them NaN.

    The distance is that of `generator.copy.nearest_frames`. Where there are fewer rows than candidates, the nearest
    stands in.
    """
    warped = max(config.candidates - 1, 1)
    distances = torch.cdist(driving_points.flatten(1), support_points.flatten(1))  # [T, K]
    nearest = distances.argsort(dim=1, stable=True)[:, :warped]
    first = nearest[:, :1]
    return torch.cat([nearest, first.expand(-1, config.candidates - nearest.shape[1])], 1)


def grids(support_points: Tensor, driving_points: Tensor, chosen: Tensor, config: NetworkConfig) -> Tensor:
    """Where each pixel of the driving pose lies in each chosen frame: [T, C, O, O, 2] float32 for `grid_sample`.

    Points are in pixels of the output, float32; `chosen` [T, C] comes from `choose`.
    """
    T, C = chosen.shape
    side = (config.output_size, config.output_size)
    bent = spline_nodes(
        support_points[chosen[:, : max(C - 1, 1)]], driving_points, side
    )  # [T, C - 1, 2, rows, columns]
    found = fill_between(bent.flatten(0, 1), side).reshape(T, -1, 2, *side).permute(0, 1, 3, 4, 2)
    if C == 1:
        return found
    still = F.affine_grid(torch.eye(2, 3, device=found.device)[None], [1, 1, *side], align_corners=True)
    return torch.cat([found, still[:, None].expand(T, -1, -1, -1, -1)], 1)
