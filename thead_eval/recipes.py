"""Settings from TOML files: sections of known keys, a wrong name being an error that says the right one."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from thead_eval.errors import ConfigError

Sections = dict[str, dict[str, Any]]  # Any: TOML


def read_sections(paths: Iterable[Path], known: Mapping[str, Iterable[str]]) -> Sections:
    """What the files say, a later one having the last word; every section is there, lists are tuples.

    Raises:
        ConfigError: a file is missing or no TOML, or a section or a key is unknown.
    """
    sections: Sections = {section: {} for section in known}
    for path in paths:
        try:
            content = tomllib.loads(path.read_text())
        except FileNotFoundError:
            raise ConfigError(f"config file '{path}' does not exist; check --config") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"config file '{path}' is not TOML ({error}); correct it") from None
        for section, values in content.items():
            check_name(section, known, f"{path}: unknown section")
            for key, value in values.items():
                check_name(key, known[section], f"{path}: unknown key in [{section}]")
                sections[section][key] = tuple(value) if isinstance(value, list) else value
    return sections


def check_name(name: str, known: Iterable[str], what: str) -> None:
    """Refuse a name that is not known, with the nearest that is.

    Raises:
        ConfigError: it is not known.
    """
    names = list(known)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(sorted(names))}"
        raise ConfigError(f"{what} '{name}'; {hint}")
