"""Progress bars with the time left, on stderr, so that stdout stays for results."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from thead_eval.judging import Progress as Tell


@contextmanager
def progress_bars() -> Iterator[Tell]:
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
