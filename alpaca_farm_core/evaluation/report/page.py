"""Where HTML pages come from: a template of this package in, with every text escaped; the one set of rules for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

_REPORT = "alpaca_farm_core.evaluation.report"


def page_template(name: str, filters: Mapping[str, Callable[..., Any]], package: str = _REPORT) -> Template:
    """Load `templates/NAME.html.jinja` of a package; a value that the page names and does not get is an error."""
    environment = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(f"{name}.html.jinja")
