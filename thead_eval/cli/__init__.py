"""The command line: one file a verb, each imported when it is called."""

import sys
from importlib import import_module
from typing import Any

import click

from thead_eval import __version__
from thead_eval.errors import ThevalError

# The verbs in the order of a user's first day, with the line that `theval --help` shows. Kept here so that help
# imports nothing heavy.
VERBS = {
    "demo": "The whole path in a few minutes, on what the packages carry.",
    "import": "A public benchmark as it lies on the disk to a manifest.",
    "prepare": "Videos to a dataset of head crops with landmarks.",
    "train": "Teach the few-shot generator on a dataset.",
    "track": "The landmarks of a video, as a small file to drive with.",
    "generate": "Photos to a talking head; a dataset to fakes of everyone in it.",
    "detect": "Detectors of fakes: train, judge, audit their data, scan a file.",
    "export": "A talker or a detector as an ONNX file that runs without torch.",
    "score": "Fakes against real frames: FID, SSIM, CSIM, landmarks.",
    "study": "Ask people which of three videos is fake: make, serve, score.",
    "report": "Runs to one HTML file.",
    "bench": "A whole benchmark by one command, resumable, with one report.",
    "heads": "Procedural talking heads as videos, to try things with.",
    "regress": "A run beside a committed baseline, for CI: exit 0, 1 or 2.",
    "card": "A checkpoint, its training and its runs to a model card.",
    "weights": "Pretrained files: list, fetch, verify, import, mirror.",
    "list": "Metrics, feature networks, generators and detectors by name.",
    "doctor": "What works on this machine.",
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is called."""

    def __init__(self, *, package: str, lines: dict[str, str], **settings: Any) -> None:  # Any: click's own
        """For commands that are modules of a package; `lines` is what help says of each, in its order."""
        super().__init__(**settings)
        self.package, self.lines = package, lines

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lines]  # the module list.py beside this hides the built-in

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lines:
            return None
        command = getattr(import_module(f"{self.package}.{cmd_name}"), "command")  # noqa: B009  # typed below
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:  # Any: click's own
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click would end with 1, as if theval were at fault
            click.echo("\nStopped.", err=True)
            ctx.exit(130)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*self.lines.items()])


@click.group(
    cls=LazyGroup,
    package=__name__,
    lines=VERBS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="theval")
def theval() -> None:
    """How real are talking-head fakes, and can they be told from real video?

    \b
    Examples:
      theval demo
      theval prepare videos/ dataset/
      theval score --data dataset/ --generator copy --generator warp --shots 1,8,32 --out runs/first
      theval report runs/first -o report.html
    """


def main() -> None:
    """The console script: a user's error is one sentence and exit code 2, ours a traceback."""
    try:
        theval()
    except ThevalError as error:
        click.echo(f"theval: error: {error}", err=True)
        sys.exit(2)
