"""The errors that a user can cause, each printed as one sentence with the next step.

ThevalError             anything below; the command line prints it and exits 2
  ConfigError           an option, a manifest or a config file is wrong
  MediaError            a video or an image cannot be read or written
  NoFaceFound           a face was needed and not found; SeveralFaces: or several were
  DatasetError          a prepared dataset is missing, damaged or too small
  RunError              a run folder is missing, damaged or made with other settings
  CheckpointError       a generator's checkpoint is missing, damaged or of other networks
  WeightsMissing        a pretrained file is not on this machine
  WeightsCorrupt        a pretrained file is not the one that its checksum names
  DownloadFailed        a fetch ended without the whole file
  PluginError           a metric, generator or detector name is unknown, taken or broken
  TrainingFailed        a training diverged or collapsed; 'theval train' exits 1
"""


class ThevalError(Exception):
    """Something could not be done; the message names the thing, the place and the next step."""


class ConfigError(ThevalError):
    """An option, a manifest or a config file is wrong."""


class MediaError(ThevalError):
    """A video or an image cannot be read or written."""


class NoFaceFound(ThevalError):
    """A face was needed and not found."""


class SeveralFaces(NoFaceFound):
    """A picture shows several faces, and nobody has said which."""


class DatasetError(ThevalError):
    """A prepared dataset is missing, damaged or too small for what was asked."""


class NobodyFits(DatasetError):
    """A dataset in which nobody has the clips or frames that are asked for."""


class RunError(ThevalError):
    """A run folder is missing, damaged or made with other settings."""


class CheckpointError(ThevalError):
    """A generator's checkpoint is missing, damaged or of other networks."""


class WeightsMissing(ThevalError):
    """A pretrained file is not on this machine."""


class WeightsCorrupt(ThevalError):
    """A pretrained file is not the one that its checksum names."""


class DownloadFailed(ThevalError):
    """A fetch ended without the whole file."""


class PluginError(ThevalError):
    """A metric, generator or detector name is unknown, taken or broken."""


class TrainingFailed(ThevalError):
    """A training diverged or collapsed."""
