"""Where tables are printed."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PIPED = 160  # columns where nobody says how many there are, as in a pipe or a CI log; rich takes 80, and cuts names


def results_console(**settings: Any) -> "Console":  # Any: rich's own
    """Stdout, as wide as the terminal."""
    from rich.console import Console

    console = Console(**settings)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED
    return console
