"""theval detect: detectors of fakes, one file a subcommand, each imported when it is called."""

import click

from thead_eval.cli import LazyGroup

# In the order of use: what a detector learns, how it is judged, whether its data can be trusted, what it says.
SUBCOMMANDS = {
    "train": "Teach a detector on real clips and fakes of other generators.",
    "eval": "Judge detectors: seen and unseen generators, strength, calibration.",
    "audit": "Whether train and test are apart, and whether the files alone give fakes away.",
    "scan": "A video or image: fake, real or inconclusive, with the frames that decide.",
}


@click.group("detect", cls=LazyGroup, package=__name__, lines=SUBCOMMANDS)
def command() -> None:
    """Can these fakes be told from real video? Train, judge and use detectors.

    \b
    Examples:
      theval detect train --data dataset/ --fakes fakes/ --detector efflite0 --out detectors/mine
      theval detect scan video.mp4
    """
