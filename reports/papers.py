"""The tables of a report for a paper or a pull request: Markdown, and LaTeX with booktabs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import detection, tables
from reports.runs import Run, open_runs
from thead_eval.texts import write_whole

# What a name or a number may hold that LaTeX reads as a command.
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u2212": r"\ensuremath{-}", "\u202f": r"\,", "—": "---", "–": "--", "·": r"\textperiodcentered{}",  # noqa: RUF001
    "↑": r"\ensuremath{\uparrow}", "↓": r"\ensuremath{\downarrow}",
    "→": r"\ensuremath{\rightarrow}", "±": r"\ensuremath{\pm}",
}  # fmt: skip
# What Markdown, or the HTML in it, reads as markup.
MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "`": "&#96;", "\\": "\\\\", "*": r"\*", "_": r"\_",
            "[": r"\[", "]": r"\]"}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A number with its interval, and whether it is surely the best."""

    text: str
    interval: str
    best: bool


@dataclass(frozen=True)
class Table:
    """A table without a page around it."""

    title: str
    caption: str
    corner: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[str, tuple[tuple[str, tuple[Cell, ...]], ...]], ...]  # heading; rows of a name and cells


def write_tables(folders: Sequence[Path], markdown: Path | None, latex: Path | None) -> None:
    """Write the tables of these runs into the files that are named.

    Raises:
        RunError: a folder is no finished run, or a file cannot be written.
    """
    found = tables_of(open_runs(folders))
    for path, text in ((markdown, to_markdown(found)), (latex, to_latex(found))):
        if path is not None:
            write_whole(path, text, "name another file")


def tables_of(runs: Sequence[Run]) -> list[Table]:
    """Those of the page: a family of metrics each, or a protocol."""
    if any(run.record.config.get("detection") for run in runs):
        return [
            Table(
                f"{run.key} {run.label}: {table.title}" if run.key else table.title,
                table.lead,
                table.corner,
                table.columns,
                tuple(
                    (
                        heading,
                        tuple((name, tuple(Cell(c.text, c.interval, False) for c in cells)) for name, cells in rows),
                    )
                    for heading, rows in table.blocks
                ),
            )
            for run in runs
            for table in detection.numbers_tables(run.measurements, "clip")
        ]
    return [
        Table(
            table.family.title,
            f"{table.family.question} 95 % intervals over people; bold: surely better than every other row of its "
            f"block.{f' Each row: {table.counts}.' if table.counts else ''}",
            "generator",
            tuple(f"{column.metric} {column.arrow}" for column in table.columns),
            tuple(
                (
                    heading,
                    tuple(
                        (row.condition.name, tuple(Cell(c.text, c.interval, c.mark == "best") for c in row.cells))
                        for row in rows
                    ),
                )
                for heading, rows in table.blocks
            ),
        )
        for table in tables.tables(runs)
    ]


def to_markdown(found: Sequence[Table]) -> str:
    """A table each, with its heading and caption."""
    lines: list[str] = []
    for table in found:
        lines += [f"### {_escape(table.title, MARKDOWN)}", "", _escape(table.caption, MARKDOWN), ""]
        lines.append(_row([table.corner, *table.columns]))
        lines.append("| --- |" + " ---: |" * len(table.columns))
        for heading, rows in table.blocks:
            if heading:
                lines.append(f"| **{_escape(heading, MARKDOWN)}** |" + " |" * len(table.columns))
            for name, cells in rows:
                lines.append("| " + " | ".join([_escape(name, MARKDOWN), *map(_markdown_cell, cells)]) + " |")
        lines.append("")
    return "\n".join(lines)


def to_latex(found: Sequence[Table]) -> str:
    """A table environment each; needs booktabs."""
    lines = [r"% \usepackage{booktabs}"]
    for table in found:
        columns = " & ".join(_escape(text, LATEX) for text in (table.corner, *table.columns))
        lines += [r"\begin{table}", r"\centering", rf"\caption{{{_escape(f'{table.title}. {table.caption}', LATEX)}}}"]
        lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule", rf"{columns} \\", r"\midrule"]
        for index, (heading, rows) in enumerate(table.blocks):
            if index:
                lines.append(r"\midrule")
            if heading:
                lines.append(rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\emph{{{_escape(heading, LATEX)}}}}} \\")
            lines += [" & ".join([_escape(name, LATEX), *map(_latex_cell, cells)]) + r" \\" for name, cells in rows]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(text, MARKDOWN) for text in texts) + " |"


def _markdown_cell(cell: Cell) -> str:
    text = _escape(cell.text, MARKDOWN)
    interval = f" {_escape(cell.interval, MARKDOWN)}" if cell.interval else ""
    return f"**{text}**{interval}" if cell.best else f"{text}{interval}"


def _latex_cell(cell: Cell) -> str:
    text = _escape(cell.text, LATEX)
    # In braces: a bracket after a line's end would be read as its argument.
    interval = rf" {{\scriptsize {_escape(cell.interval, LATEX)}}}" if cell.interval else ""
    return rf"\textbf{{{text}}}{interval}" if cell.best else f"{text}{interval}"


def _escape(text: str, characters: dict[str, str]) -> str:
    return "".join(characters.get(character, character) for character in text.replace("\n", " "))
