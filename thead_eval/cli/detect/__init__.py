"""theval detect: detectors of fakes, one file a subcommand, each imported when it is called."""

from importlib import import_module

import click

# In the order of use: what a detector learns, how it is judged, whether its data can be trusted, what it says.
SUBCOMMANDS = {
    "train": "Teach a detector on real clips and fakes of other generators.",
    "eval": "Judge detectors: seen and unseen generators, strength, calibration.",
    "audit": "Whether train and test are apart, and whether the files alone give fakes away.",
    "scan": "A video or image: fake, real or inconclusive, with the frames that decide.",
}


class Subcommands(click.Group):
    """A group that imports a subcommand's module only when that subcommand is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        subcommand = getattr(import_module(f"thead_eval.cli.detect.{cmd_name}"), "command")  # noqa: B009  # typed below
        assert isinstance(subcommand, click.Command)
        return subcommand

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


@click.group("detect", cls=Subcommands)
def command() -> None:
    """Can these fakes be told from real video? Train, judge and use detectors.

    \b
    Examples:
      theval detect train --data dataset/ --fakes fakes/ --detector efflite0 --out detectors/mine
      theval detect scan video.mp4
    """
