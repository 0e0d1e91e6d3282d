"""theval list: metrics, feature networks, generators and detectors by name."""

import dataclasses
import inspect
import json
from dataclasses import dataclass
from importlib import import_module
from typing import get_args

import click
from rich.markup import escape
from rich.padding import Padding

from thead_eval import plugins
from thead_eval.cli.console import results_console
from thead_eval.errors import ThevalError
from thead_eval.plugins import Kind

TO_TRAIN = "detector to train"
HEADINGS: dict[str, str] = {
    "metric": "Metrics",
    "features": "Feature networks",
    "generator": "Generators",
    "detector": "Detectors",
    TO_TRAIN: "Kinds of detectors that 'theval detect train' trains",
}


@dataclass(frozen=True)
class Entry:
    """One name, with what it is, or why it cannot be had."""

    kind: str  # one of HEADINGS
    name: str
    package: str
    target: str  # "module:attribute"
    summary: str = ""
    unit: str | None = None  # of metrics
    higher_is_better: bool | None = None  # of metrics; None: the nearer to 0 the better
    features: tuple[str, ...] = ()  # feature networks that a metric reads
    weights: tuple[str, ...] = ()  # pretrained files that it needs, and those that its feature networks need
    error: str | None = None  # it failed to import


@click.command()
@click.argument("kind", type=click.Choice(get_args(Kind)), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print every field as JSON.")
def command(kind: Kind | None, as_json: bool) -> None:
    """Metrics, feature networks, generators and detectors by name, ours and those of other packages.

    A metric's name fixes its every setting; the summary says which. A plug-in that fails to import is shown with its
    reason. Beside detectors that can be used stand the kinds that can be trained, in --json as "detector to train".

    \b
    Examples:
      theval list
      theval list metric
      theval list --json | jq -r '.[] | select(.kind == "metric") | .name'
    """
    kinds: tuple[Kind, ...] = (kind,) if kind else get_args(Kind)
    found = [entry for each in kinds for entry in entries(each)]
    if "detector" in kinds:
        found += kinds_to_train()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(entry) for entry in found], indent=1))
        return
    console = results_console(highlight=False)
    for each in (*kinds, TO_TRAIN) if "detector" in kinds else kinds:
        console.print(f"[bold underline]{HEADINGS[each]}[/]")
        shown = [entry for entry in found if entry.kind == each]
        for entry in shown:
            console.print(f"[bold]{entry.name}[/]{facts(entry)}")
            text = f"[red]broken:[/] {escape(entry.error)}" if entry.error else escape(entry.summary)
            console.print(Padding(text, (0, 0, 0, 4)))
        console.print("" if shown else "none\n")


def facts(entry: Entry) -> str:
    """What stands beside a name: its package, unit, direction, and pretrained files."""
    from thead_eval.results import direction

    parts = [] if entry.package == "theval" else [f"from {escape(entry.package)}"]
    if entry.unit:
        parts.append(f"in {escape(entry.unit)}")
    if entry.kind == "metric" and not entry.error:
        parts.append(f"{direction(entry.higher_is_better)} is better")
    if entry.weights:
        parts.append(f"needs {', '.join(entry.weights)}")
    return f"  [dim]{'; '.join(parts)}[/]" if parts else ""


def entries(kind: Kind) -> list[Entry]:
    """Every name of a kind; one that fails to import has its reason in `error`.

    Raises:
        PluginError: two packages claim one name.
    """
    return [entry_of(kind, origin) for origin in plugins.available(kind).values()]


def kinds_to_train() -> list[Entry]:
    """What 'theval detect train --detector' takes: a kind is a file, which says what it is."""
    from detectors.checkpoint import NETWORKS

    kinds = []
    for name, target in NETWORKS.items():
        entry = Entry(TO_TRAIN, "timm:NAME" if name == "timm" else name, "theval", target)
        try:
            kinds.append(dataclasses.replace(entry, summary=_summary(import_module(target.partition(":")[0]))))
        except Exception as error:  # as in `entry_of`
            kinds.append(dataclasses.replace(entry, error=f"{type(error).__name__}: {error}"))
    return kinds


def _summary(value: object) -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(value) or "").partition("\n")[0]


def entry_of(kind: Kind, origin: plugins.Origin) -> Entry:
    """What one name is; imports it."""
    from thead_eval.types import FeatureMetric, FeatureNetwork, PixelMetric, SetMetric  # imports torch

    entry = Entry(kind, origin.name, origin.package, origin.target)
    try:
        value = plugins.load(kind, origin.name)
        match value:
            case PixelMetric() | FeatureNetwork():
                entry = dataclasses.replace(entry, summary=value.summary, weights=value.weights)
            case FeatureMetric() | SetMetric():
                features = value.features if isinstance(value, FeatureMetric) else (value.feature,)
                networks: list[FeatureNetwork] = [plugins.load("features", name) for name in features]
                needed = tuple(dict.fromkeys(name for network in networks for name in network.weights))
                entry = dataclasses.replace(entry, summary=value.summary, features=features, weights=needed)
            case _:  # a factory: its docstring says what it makes
                entry = dataclasses.replace(entry, summary=_summary(value))
        if kind == "metric":
            entry = dataclasses.replace(entry, unit=value.unit, higher_is_better=value.higher_is_better)
    except ThevalError as error:
        return dataclasses.replace(entry, error=str(error))
    except Exception as error:  # ours too: on a damaged installation, the list is what shows it
        return dataclasses.replace(entry, error=f"{type(error).__name__}: {error}")
    return entry
