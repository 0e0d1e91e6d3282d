"""theval: how real are few-shot talking-head fakes, and can they be told from real video?

The public API. Every name here is stable between minor versions; the sibling packages are not. A name is imported
on first use, so that `import thead_eval`, and with it `theval --help`, does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from thead_eval.errors import (
    ConfigError,
    DatasetError,
    DownloadFailed,
    MediaError,
    NoFaceFound,
    PluginError,
    RunError,
    ThevalError,
    WeightsCorrupt,
    WeightsMissing,
)

if TYPE_CHECKING:
    from thead_eval.data import Dataset, open_dataset
    from thead_eval.media import read_clip, read_image, write_clip
    from thead_eval.results import Measurement, RunRecord, read_measurements, read_run
    from thead_eval.types import (
        Clip,
        Detector,
        DetectorFactory,
        FeatureMetric,
        FeatureNetwork,
        FeatureSet,
        FewShotGenerator,
        FewShotSet,
        GeneratorFactory,
        Landmarks,
        PixelMetric,
        SetMetric,
        Talker,
    )

__version__ = "0.1.0"

__all__ = [
    "Clip",
    "ConfigError",
    "Dataset",
    "DatasetError",
    "Detector",
    "DetectorFactory",
    "DownloadFailed",
    "FeatureMetric",
    "FeatureNetwork",
    "FeatureSet",
    "FewShotGenerator",
    "FewShotSet",
    "GeneratorFactory",
    "Landmarks",
    "Measurement",
    "MediaError",
    "NoFaceFound",
    "PixelMetric",
    "PluginError",
    "RunError",
    "RunRecord",
    "SetMetric",
    "Talker",
    "ThevalError",
    "WeightsCorrupt",
    "WeightsMissing",
    "__version__",
    "open_dataset",
    "read_clip",
    "read_image",
    "read_measurements",
    "read_run",
    "write_clip",
]

# The same names as under TYPE_CHECKING, by the module that they are imported from on first use.
_LAZY = {
    "data": ["Dataset", "open_dataset"],
    "media": ["read_clip", "read_image", "write_clip"],
    "results": ["Measurement", "RunRecord", "read_measurements", "read_run"],
    "types": [
        "Clip",
        "Detector",
        "DetectorFactory",
        "FeatureMetric",
        "FeatureNetwork",
        "FeatureSet",
        "FewShotGenerator",
        "FewShotSet",
        "GeneratorFactory",
        "Landmarks",
        "PixelMetric",
        "SetMetric",
        "Talker",
    ],
}

if not TYPE_CHECKING:  # a type checker would take any name for defined

    def __getattr__(name: str) -> object:
        for module, names in _LAZY.items():
            if name in names:
                return getattr(import_module(f"thead_eval.{module}"), name)
        raise AttributeError(f"module 'thead_eval' has no attribute '{name}'")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
