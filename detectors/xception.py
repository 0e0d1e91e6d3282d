"""Xception (Chollet 2017), which FaceForensics++ made the field's baseline; PyPI carries no weights of it."""

from detectors.backbone import Backbone


class Xception(Backbone):
    """Frames one by one, by timm's `legacy_xception`."""

    def __init__(self, size: int = 224, weights: str = "") -> None:
        super().__init__("legacy_xception", size, weights)
