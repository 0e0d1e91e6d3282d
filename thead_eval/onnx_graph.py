"""A network as an ONNX graph, for the files that `theval export` writes."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from thead_eval.errors import ConfigError

OPSET = 18


def trace(network: nn.Module, example: Tensor, name: str, **options: Any) -> Any:  # Any: torch.onnx's own types
    """The program of a network with one input, called `name`, such as `example`; its `save` writes the file.

    Raises:
        ConfigError: the packages that write ONNX are not installed.
    """
    try:
        import onnxscript  # noqa: F401  # torch's exporter stands on it
    except ImportError:
        raise ConfigError(
            "exporting needs the packages onnx and onnxscript; run 'pip install \"theval[export]\"'"
        ) from None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own deprecations, about which a user can do nothing
        return torch.onnx.export(
            network, (example,), dynamo=True, input_names=[name], opset_version=OPSET, verbose=False, **options
        )
