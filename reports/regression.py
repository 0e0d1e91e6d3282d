"""What a regression gate found, for a terminal, a pull request, JUnit and GitHub's annotations."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from reports.numbers import DASH, count_words, digits, write_number
from thead_eval.regression import FAILING, Finding, Judgement

MOST_ANNOTATIONS = 9  # of the ten that GitHub shows of a step; the last says how many more there are
HEADINGS = ("", "number", "baseline", "now", "change [95 %]", "tolerance", "why")


def headline(judgement: Judgement) -> str:
    """The outcome in one sentence."""
    if judgement.differing:
        return f"Not comparable: {'; '.join(judgement.differing)}."
    others = sum(found.outcome == "other people" for found in judgement.findings)
    numbers = count_words(len(judgement.failing), "number")
    fail = f"{numbers} {'fails' if len(judgement.failing) == 1 else 'fail'}" if judgement.failing else ""
    if not fail and others:
        fail = f"Not comparable: {count_words(others, 'number')} of other people; look at why, then --update-baseline"
    if not fail and not judgement.compared:
        fail = "Not comparable: no number has two people to pair by"
    return f"{fail or 'Nothing is worse'}; {count_words(judgement.compared, 'number')} compared, person by person."


def counts(judgement: Judgement) -> str:
    """'3 worse, 1 missing, 20 same'."""
    order = [*FAILING, "other people", "better", "same", "new", "not compared"]
    found = [(sum(each.outcome == outcome for each in judgement.findings), outcome) for outcome in order]
    return ", ".join(f"{count} {outcome}" for count, outcome in found if count)


def told_first(findings: Sequence[Finding]) -> list[Finding]:
    """What needs a look: all but what is the same, or new, or never compared."""
    order = (*FAILING, "other people", "better")
    shown = [found for found in findings if found.outcome in order]
    return sorted(shown, key=lambda found: order.index(found.outcome))


def print_table(judgement: Judgement) -> None:
    """To the terminal: what needs a look, and how much else there is."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    shown = told_first(judgement.findings)
    if shown:
        table = Table()
        for heading in HEADINGS:
            table.add_column(heading)
        for found in shown:
            style = "red" if found.outcome in FAILING else "green" if found.outcome == "better" else "yellow"
            table.add_row(*map(escape, _cells(found)), style=style)
        console.print(table)
    console.print(headline(judgement), highlight=False, markup=False, soft_wrap=True)
    if judgement.findings:
        console.print(counts(judgement), highlight=False)
    if judgement.also:
        console.print(f"Also different: {', '.join(judgement.also)}", highlight=False, markup=False, soft_wrap=True)


def write_markdown(judgement: Judgement) -> str:
    """For a pull request: what needs a look as a table, the rest folded."""
    mark = {0: "✅", 1: "❌", 2: "⚠️"}[judgement.exit_code]
    parts = [f"### {mark} theval regress", "", _markdown(headline(judgement)), ""]
    shown = told_first(judgement.findings)
    rest = [found for found in judgement.findings if found not in shown]
    if shown:
        parts += [*_table(shown), ""]
    if rest:
        parts += [f"<details><summary>{counts(judgement)}</summary>", "", *_table(rest), "", "</details>", ""]
    origin = judgement.baseline.origin
    parts.append(f"Baseline: {_commit(origin.commit, origin.dirty)}, {origin.started}. ")
    parts[-1] += f"Run: {_commit(judgement.record.commit, judgement.record.dirty)}, {judgement.record.started}."
    if judgement.also:
        parts += ["", _markdown(f"Also different: {', '.join(judgement.also)}.")]
    return "\n".join(parts) + "\n"


def _table(findings: Sequence[Finding]) -> Iterator[str]:
    yield "| " + " | ".join(HEADINGS) + " |"
    yield "|" + " --- |" * 2 + " ---: |" * 4 + " --- |"
    for found in findings:
        yield "| " + " | ".join(map(_markdown, _cells(found))) + " |"


def write_junit(judgement: Judgement) -> str:
    """A test case a number; what was not compared is skipped."""
    suite = ET.Element("testsuite", name="theval regress")
    if judgement.differing:
        case = ET.SubElement(suite, "testcase", classname="theval.regress", name="comparable")
        ET.SubElement(case, "error", message=_printable(headline(judgement)))
    for found in judgement.findings:
        case = ET.SubElement(suite, "testcase", classname=f"theval.{found.metric}", name=_printable(_name(found)))
        told = _printable(_sentence(found))
        if found.outcome in FAILING:
            ET.SubElement(case, "failure", type=found.outcome, message=told)
        elif found.outcome == "other people":
            ET.SubElement(case, "error", type=found.outcome, message=told)
        elif found.change is None:
            ET.SubElement(case, "skipped", message=told)
        else:
            ET.SubElement(case, "system-out").text = told
    for kind in ("failure", "error", "skipped"):
        plural = {"failure": "failures", "error": "errors"}.get(kind, kind)
        suite.set(plural, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite)))
    ET.indent(suite)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(suite, encoding="unicode")}\n'


def annotations(judgement: Judgement, file: str) -> list[str]:
    """GitHub's workflow commands: an error a failure, at the baseline's file."""
    if judgement.exit_code == 0:
        return []
    if not judgement.failing:
        return [_annotation("not comparable", headline(judgement), file)]
    shown, more = judgement.failing[:MOST_ANNOTATIONS], judgement.failing[MOST_ANNOTATIONS:]
    lines = [_annotation(f"{found.outcome}: {found.metric}", _sentence(found), file) for found in shown]
    return [*lines, _annotation("and more", f"{len(more)} more numbers fail", file)] if more else lines


def _annotation(title: str, message: str, file: str) -> str:
    def escape(text: str, characters: str) -> str:
        for character in f"%\r\n{characters}":
            text = text.replace(character, f"%{ord(character):02X}")
        return text

    return f"::error file={escape(file, ':,')},title={escape(f'theval {title}', ':,')}::{escape(message, '')}"


def _cells(found: Finding) -> tuple[str, ...]:
    number = digits([found.before, found.now])
    change = DASH
    if found.change:
        style = digits(found.change[:3])
        value, low, high = (write_number(each, style) for each in found.change[:3])
        change = f"{'+' * (found.change.value > 0)}{value} [{low}, {high}]"
    tolerance = DASH if found.tolerance is None else write_number(found.tolerance, digits([found.tolerance]))
    values = (write_number(found.before, number), write_number(found.now, number))
    return (found.outcome, _name(found), *values, change, tolerance, found.why)


def _name(found: Finding) -> str:
    """'ssim, warp, shots 8'."""
    labels = [
        value if name in ("generator", "detector", "protocol") else f"{name.replace('_', ' ')} {value}"
        for name, value in found.labels.items()
        if name != "unit"
    ]
    return ", ".join([found.metric, *labels])


def _sentence(found: Finding) -> str:
    outcome, name, before, now, change, tolerance, why = _cells(found)
    p = f", p {found.p:.2g} among all" if found.p is not None else ""
    reason = f" ({why})" if why else ""
    return f"{name}: {outcome}{reason}; {before} → {now}, change {change}{p}, tolerance {tolerance}"


def _commit(commit: str | None, dirty: bool | None) -> str:
    return f"{commit[:12]}{' with changes' * bool(dirty)}" if commit else "no commit recorded"


def _markdown(text: str) -> str:
    """As text: names come from users, and a cell ends at a bar."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\|`*_[]@#":
        text = (
            text.replace(character, f"&#{ord(character)};")
            if character in "|`@#"
            else text.replace(character, f"\\{character}")
        )
    return text


def _printable(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t")
