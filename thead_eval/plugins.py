"""Metrics, feature networks, generators and detectors by name: ours first, then entry points of other packages."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from thead_eval.errors import PluginError, ThevalError

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
    },
    "generator": {
        "copy": "generator.copy:copy",
        "warp": "generator.warp:warp",
    },
    "detector": {},
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
    for entry in entry_points(group=f"theval.{kind}"):
        package = _package(entry)
        if entry.name in found:
            raise PluginError(
                f"{kind} '{entry.name}' of package '{package}' is already taken by '{found[entry.name].package}'; "
                "rename the entry point or uninstall one of the two"
            )
        found[entry.name] = Origin(entry.name, entry.value, package, entry.load)
    return found


def load(kind: Kind, name: str) -> Any:  # Any: the caller knows what its kind gives
    """The metric, feature network, generator or detector of that name.

    Raises:
        PluginError: no such name (with the nearest one), a name claimed twice, or a plug-in that fails to import.
    """
    origins = available(kind)
    if name not in origins:
        close = difflib.get_close_matches(name, origins, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(origins) or 'none'}"
        raise PluginError(f"no {kind} is named '{name}'; {hint} ('theval list' shows all)")
    origin = origins[name]
    if origin.package == "theval":
        return origin.load()
    try:
        return origin.load()
    except ThevalError:
        raise
    except Exception as error:  # a stranger's module can raise anything
        raise PluginError(
            f"{kind} '{name}' of package '{origin.package}' failed to import ({type(error).__name__}: {error}); "
            f"update or uninstall '{origin.package}'"
        ) from error


def _import(target: str) -> Any:  # Any: as `load`
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "unknown"
