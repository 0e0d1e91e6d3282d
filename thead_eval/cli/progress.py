"""Progress bars with the time left, on stderr, so that stdout stays for results."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from thead_eval.judging import Progress as Tell
    from thead_eval.training import Status


@contextmanager
def progress_bars() -> "Iterator[Tell]":
    """A function (what is being done, done, of how many) that draws a bar for each thing it is told of."""
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(stderr=True))
    known: dict[str, TaskID] = {}

    def tell(what: str, done: int, total: int) -> None:
        if not known:  # not before: stopping bars prints a line, and a refused command has only its sentence to say
            bars.start()
        if what not in known:
            known[what] = bars.add_task(what, total=total)
        bars.update(known[what], completed=done, total=total)

    try:
        yield tell
    finally:
        if known:
            bars.stop()


class TrainingBars(NamedTuple):
    """What a training tells."""

    tell: "Callable[[Status], None]"  # each step
    read: "Tell"  # what is read at the start
    say: Callable[[str], None]  # a line above the bars


@contextmanager
def training_bars(shown: bool) -> Iterator[TrainingBars]:
    """A bar of the steps with the time left, bars of what is read, and lines above them; nothing unless `shown`."""
    if not shown:
        yield TrainingBars(lambda status: None, lambda what, done, total: None, lambda line: None)
        return
    console = Console(stderr=True, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    bars = Progress(*columns, console=console)
    known: dict[str, TaskID] = {}
    first: list[Status] = []

    def read(what: str, done: int, total: int, pace: str = "") -> None:
        if not known:  # not before, as above
            bars.start()
        if what not in known:
            known[what] = bars.add_task(what, total=total, pace="")
        bars.update(known[what], completed=done, total=total, pace=pace)

    def tell(status: "Status") -> None:
        first.append(status) if not first else None
        made = status.step - first[0].step
        pace = f"{(status.seconds - first[0].seconds) / made:.2f} s a step" if made else ""
        read("training", status.step, status.steps, pace)

    try:
        yield TrainingBars(tell, read, lambda line: console.print(line, highlight=False, markup=False))
    finally:
        if known:
            bars.stop()
