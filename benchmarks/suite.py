"""Suites: a whole benchmark in one TOML file, ours by name and a user's by path.

Each section is a command of theval and each key an option of it, so that a suite can say all that the commands can:

[suite]        about; seeds; dataset, where a prepared one is there already
[heads]        theval heads         [import]     theval import       [prepare]     theval prepare
[train]        theval train         [generate]   theval generate     [score]       theval score
[eval.NAME]    theval detect eval, as often as needed
[hours]        what each stage takes, as its author measured or thinks, and on which `machine`
"""

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from thead_eval.errors import ConfigError
from thead_eval.recipes import check_name

FOLDER = Path(__file__).parent / "suites"
COMMANDS = ("heads", "import", "prepare", "train", "generate", "score")

Options = Mapping[str, Any]  # of a command, as TOML has them


@dataclass(frozen=True)
class Suite:
    """What a benchmark is made of."""

    name: str
    folder: Path  # of its file: paths in it are relative to that
    about: str = ""
    seeds: tuple[int, ...] = (0,)  # each makes fakes, scores and trainings of its own
    dataset: str = ""  # prepared already; else it is prepared
    commands: Mapping[str, Options] = field(default_factory=dict)
    evals: Mapping[str, Options] = field(default_factory=dict)
    hours: Mapping[str, float] = field(default_factory=dict)  # of a stage, as the author says
    machine: str = ""  # on which

    def on(self, data: Path) -> "Suite":
        """The same on other data: a prepared dataset, or a folder of videos.

        Raises:
            ConfigError: there is no such folder.
        """
        if not data.is_dir():
            raise ConfigError(f"--data '{data}' is not a folder; give a prepared dataset, or one of videos")
        kept = {name: options for name, options in self.commands.items() if name not in ("heads", "prepare")}
        if (data / "dataset.json").exists():
            kept.pop("import", None)
            return replace(self, dataset=str(data.resolve()), commands=kept)
        own = ("src", "layout", "manifest")  # of the suite's own videos
        asked = {key: value for key, value in self.commands.get("prepare", {}).items() if key not in own}
        if "import" in kept:
            kept["import"] = {**kept["import"], "folder": str(data.resolve())}
        else:
            asked["src"] = str(data.resolve())
        return replace(self, dataset="", commands=kept | {"prepare": asked})


def names() -> list[str]:
    """Of the suites that theval carries."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_suite(name: str) -> Suite:
    """A suite of ours by its name, or any by the path of its file.

    Raises:
        ConfigError: there is none, it is no TOML, or has a section or value that no suite has.
    """
    path = FOLDER / f"{name}.toml" if name in names() else Path(name)
    if not path.is_file():
        raise ConfigError(f"no suite is named '{name}', and there is no such file; there are: {', '.join(names())}")
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"suite '{path}' is not TOML ({error}); correct it") from None
    for section, values in content.items():
        check_name(section, ("suite", *COMMANDS, "eval", "hours"), f"{path}: unknown section")
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: '{section}' stands outside of any section; put it under [suite]")
    about, hours = content.get("suite", {}), dict(content.get("hours", {}))
    for key in about:
        check_name(key, ("about", "seeds", "dataset"), f"{path}: unknown key in [suite]")
    seeds = about.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{path}: seeds {seeds!r} is not a list of numbers such as [0, 1, 2]")
    evals = content.get("eval", {})
    for key, value in evals.items():
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: [eval] has '{key}'; name what is judged, as [eval.{key}]")
    return Suite(
        path.stem,
        path.resolve().parent,
        about.get("about", ""),
        tuple(dict.fromkeys(seeds)),
        about.get("dataset", ""),
        {section: content[section] for section in COMMANDS if section in content},
        evals,
        {key: float(value) for key, value in hours.items() if key != "machine"},
        str(hours.get("machine", "")),
    )


def expand(value: str, where: str) -> str:
    """A value with what `$NAME` stands for.

    Raises:
        ConfigError: it stands for nothing.
    """
    whole = os.path.expanduser(os.path.expandvars(value))
    if "$" in whole:
        raise ConfigError(f"{where} is '{value}', and that is not set; export it, or name the data with --data")
    return whole


def write_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:  # Any: TOML
    """Sections of plain values, as a recipe has them."""
    lines: Iterable[str] = (
        line
        for section, values in sections.items()
        for line in (f"[{section}]", *(f"{key} = {_plain(value)}" for key, value in values.items()))
    )
    return "\n".join(lines) + "\n"


def _plain(value: object) -> str:
    """A number, text, truth or list of these: JSON writes them as TOML does."""
    return json.dumps(value)
