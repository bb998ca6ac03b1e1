"""What other installed packages add, found by entry point: name → object, loaded when it is used.

In: one of the groups below. Out: the names that the environment's packages register, and the object behind
a name. Only packages that are installed count: no path or module name is ever taken from a setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.files import sha256_file, sha256_text
from alpaca_farm_core.errors import ConfigError

METHODS = "alpaca_farm.methods"
ANNOTATORS = "alpaca_farm.annotators"
REWARDS = "alpaca_farm.rewards"
DATA_SOURCES = "alpaca_farm.data_sources"


@cache
def plugins(group: str) -> Mapping[str, EntryPoint]:
    """Entry points of a group by name.

    Raises:
        ConfigError: two packages register the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"Two packages register '{point.name}' under '{group}': {package(other)} and {package(point)}.",
                "Uninstall one of them.",
            )
    return found


def load_plugin(group: str, name: str) -> Any:
    """Import the object behind a name.

    Raises:
        ConfigError: it cannot be imported; the package is named.
    """
    point = plugins(group)[name]
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"'{name}' of {package(point)} cannot be loaded from {point.value}: {error}.",
            "Repair that package or uninstall it.",
        ) from error


def plugin_hash(group: str, name: str) -> str:
    """Hash of the module file behind a name, for fingerprints; of the package's version where there is no file.

    Raises:
        ConfigError: it cannot be imported.
    """
    load_plugin(group, name)
    point = plugins(group)[name]
    module = find_spec(point.module)
    source = Path(module.origin) if module and module.origin else None
    if source is not None and source.is_file():
        return sha256_file(source)
    return sha256_text(f"{point.value} of {package(point)}")


def package(point: EntryPoint) -> str:
    """Name and version of the package that registers an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"
