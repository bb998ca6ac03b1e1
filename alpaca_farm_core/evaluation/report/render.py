"""Draws the page from facts and provenance: Jinja2 with autoescape, one file, nothing to fetch.

In: the dictionaries of `facts` and `provenance`. Out: HTML. Only our own SVG is marked as safe;
every text of a model, a user or a config is escaped by the template.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from alpaca_farm_core.artifacts.files import canonical_json
from alpaca_farm_core.evaluation.report import format as words
from alpaca_farm_core.evaluation.report import pictures
from alpaca_farm_core.evaluation.report.lineage_picture import lineage_svg
from alpaca_farm_core.evaluation.report.page import page_template


def render_page(facts: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """The whole page; `facts` is report.json's content, `provenance` holds times, cost and machines."""
    graph, width = lineage_svg(facts["lineage"], provenance["references"])
    return _template().render(
        facts=facts,
        run=provenance,
        sentence=pictures.verdict_sentence(facts["headline"]),
        tiles=pictures.tiles(facts),
        leaderboard_svg=Markup(pictures.leaderboard(facts["leaderboard"])),
        length_svg=_safe(pictures.length(facts)),
        groups_svg=_safe(pictures.groups(facts)),
        curves=[{**curve, "svg": Markup(pictures.curve(curve))} for curve in facts["curves"]],
        reward_model_svg=_safe(pictures.reward_model(facts["reward_model"])),
        components_svg=_safe(pictures.components(facts)),
        families_svg=_safe(pictures.families(facts)),
        lineage_svg=Markup(graph),
        lineage_width=width,
        settings=canonical_json(facts["settings"], indent=2),
    )


def _safe(svg: str | None) -> Markup | None:
    return None if svg is None else Markup(svg)


@cache
def _template() -> Template:
    names = ("number", "fixed", "percent", "share", "interval", "duration", "hours", "money", "moment", "setting")
    return page_template("report", {name: getattr(words, name) for name in names})
