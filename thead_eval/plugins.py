"""Metrics, feature networks, generators and detectors by name: ours first, then entry points of other packages."""

import difflib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import TYPE_CHECKING, Any, Literal

from thead_eval.errors import PluginError, ThevalError

if TYPE_CHECKING:
    import torch

Kind = Literal["metric", "features", "generator", "detector"]

# "module:attribute", imported on first use. Not entry points, which would need a re-install after every edit.
BUILT_IN: dict[Kind, dict[str, str]] = {
    "metric": {
        "ssim": "thead_eval.metrics.similarity:ssim",
        "ms_ssim": "thead_eval.metrics.similarity:ms_ssim",
        "psnr": "thead_eval.metrics.similarity:psnr",
        "l1": "thead_eval.metrics.similarity:l1",
        "perc_efflite0": "thead_eval.metrics.perceptual:perc_efflite0",
        "lpips_alex": "thead_eval.metrics.perceptual:lpips_alex",
        "fid": "thead_eval.metrics.distances:fid",
        "kid": "thead_eval.metrics.distances:kid",
        "fd_efflite0": "thead_eval.metrics.distances:fd_efflite0",
        "kid_efflite0": "thead_eval.metrics.distances:kid_efflite0",
        "csim_facenet": "thead_eval.metrics.identity:csim_facenet",
        "csim_mobilefacenet": "thead_eval.metrics.identity:csim_mobilefacenet",
        "csim_dlib": "thead_eval.metrics.identity:csim_dlib",
        "l2_dlib": "thead_eval.metrics.identity:l2_dlib",
        "nme_dlib68": "thead_eval.metrics.geometry:nme_dlib68",
        "nme_fan68": "thead_eval.metrics.geometry:nme_fan68",
        "akd_dlib68": "thead_eval.metrics.geometry:akd_dlib68",
        "missing_face_dlib68": "thead_eval.metrics.geometry:missing_face_dlib68",
        "jitter_dlib68": "thead_eval.metrics.geometry:jitter_dlib68",
    },
    "features": {
        "inception_fid": "thead_eval.features:inception_fid",
        "efflite0": "thead_eval.features:efflite0",
        "facenet": "thead_eval.features:facenet",
        "mobilefacenet": "thead_eval.features:mobilefacenet",
        "dlib_resnet": "thead_eval.features:dlib_resnet",
        "dlib68": "thead_eval.features:dlib68",
        "fan68": "thead_eval.features:fan68",
        "frame_size": "thead_eval.features:frame_size",
    },
    "generator": {
        "copy": "generator.copy:copy",
        "warp": "generator.warp:warp",
        "fewshot": "generator.fewshot:fewshot",
        "fewshot_ff": "generator.fewshot:fewshot_ff",
        "fewshot_all": "generator.fewshot:fewshot_all",
        "fewshot_adain": "generator.fewshot:fewshot_adain",
        "fewshot_last_up": "generator.fewshot:fewshot_last_up",
        "fewshot_heads": "generator.fewshot:fewshot_heads",
    },
    "detector": {
        "trio": "detectors.checkpoint:trio",
        "grain": "detectors.checkpoint:grain",
    },
}


@dataclass(frozen=True)
class Origin:
    """Where a name comes from: our own table, or another package's entry point."""

    name: str
    target: str  # "module:attribute"
    package: str  # "theval", or the distribution that declares the entry point
    load: Callable[[], Any]  # Any: the four kinds have nothing in common


def available(kind: Kind) -> dict[str, Origin]:
    """Every name of a kind with its origin, ours first; imports nothing.

    Raises:
        PluginError: two packages claim one name.
    """
    found = {
        name: Origin(name, target, "theval", lambda target=target: _import(target))  # type: ignore[misc]  # lambda default
        for name, target in BUILT_IN[kind].items()
    }
    for entry in _entry_points(kind, tuple(sys.path)):
        package = _package(entry)
        if entry.name in found:
            raise PluginError(
                f"{_words(kind)} '{entry.name}' of package '{package}' is already taken by "
                f"'{found[entry.name].package}'; rename the entry point or uninstall one of the two"
            )
        found[entry.name] = Origin(entry.name, entry.value, package, entry.load)
    return found


def distributions() -> dict[str, str]:
    """Version of each other package that offers something, by its name."""
    path = tuple(sys.path)
    dists = {
        entry.dist.name: entry.dist.version for kind in BUILT_IN for entry in _entry_points(kind, path) if entry.dist
    }
    return dict(sorted(dists.items()))


def load(kind: Kind, name: str) -> Any:  # Any: the caller knows what its kind gives
    """The metric, feature network, generator or detector of that name.

    Raises:
        PluginError: no such name (with the nearest one), a name claimed twice, or a plug-in that fails to import or
            is something else.
    """
    origins = available(kind)
    if name not in origins:
        close = difflib.get_close_matches(name, origins, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(origins) or 'none'}"
        raise PluginError(f"no {_words(kind)} is named '{name}'; {hint} ('theval list' shows all)")
    origin = origins[name]
    if origin.package == "theval":
        return origin.load()
    try:
        value = origin.load()
    except ThevalError:
        raise
    except Exception as error:  # a stranger's module can raise anything
        raise PluginError(
            f"{_words(kind)} '{name}' of package '{origin.package}' failed to import "
            f"({type(error).__name__}: {error}); update or uninstall '{origin.package}'"
        ) from error
    _check(kind, origin, value)
    return value


def make(kind: Literal["generator", "detector"], name: str, device: "torch.device") -> Any:  # Any: as `load`
    """The generator or detector itself, which what is loaded by that name makes for a device.

    Raises:
        PluginError: as `load`, or a plug-in raised something of its own.
    """
    factory = load(kind, name)
    package = available(kind)[name].package
    if package == "theval":
        return factory(device)
    try:
        return factory(device)
    except ThevalError:
        raise
    except Exception as error:  # a stranger's module can raise anything
        raise PluginError(
            f"{_words(kind)} '{name}' of package '{package}' cannot be made ({type(error).__name__}: {error}); "
            f"ask those who made '{package}', or choose another"
        ) from error


def _check(kind: Kind, origin: Origin, value: object) -> None:
    from thead_eval.types import FeatureMetric, FeatureNetwork, PixelMetric, SetMetric  # imports torch

    wanted: dict[Kind, tuple[type, ...]] = {
        "metric": (PixelMetric, FeatureMetric, SetMetric),
        "features": (FeatureNetwork,),
    }
    where = f"{_words(kind)} '{origin.name}' of package '{origin.package}' ({origin.target})"
    if kind in wanted and not isinstance(value, wanted[kind]):
        names = " or ".join(t.__name__ for t in wanted[kind])
        raise PluginError(f"{where} is of type {type(value).__name__}; its entry point must name a value of {names}")
    if kind not in wanted and not callable(value):
        raise PluginError(
            f"{where} is of type {type(value).__name__}; its entry point must name a callable that takes a device"
        )
    name = getattr(value, "name", origin.name)
    if kind in wanted and name != origin.name:
        raise PluginError(f"{where} calls itself '{name}'; name the entry point so too, as results carry that name")


def _words(kind: Kind) -> str:
    return "feature network" if kind == "features" else kind


@cache
def _entry_points(kind: Kind, path: tuple[str, ...]) -> EntryPoints:
    """Those that the distributions on sys.path declare. Kept, as looking takes 50 ms and every clip asks."""
    return entry_points(group=f"theval.{kind}")


def _import(target: str) -> Any:  # Any: as `load`
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "unknown"
