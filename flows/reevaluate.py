"""The nightly flow: evaluates what is new, asks the judge about the anchors again, and raises alarms.

What it composes is in `flows.reevaluation`. An alarm is a Prefect event (`alpaca-farm.alarm.model` or
`alpaca-farm.alarm.judge`), to which an automation can answer, and a note on the run page; when asked, the
run ends as *Regression*, a failed state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed, Failed

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.errors import RegressionError
from alpaca_farm_core.evaluation.reevaluation.history import read_history
from flows.launch import NO_OVERRIDES, PresetName, launch
from tasks.show import artifact_key, escaped

_ADVICE = {
    "judge": "To take the judge as it is now for the right one, run once with reevaluate.restart_anchors=true.",
    "model": "Later checks compare with what the model is worth now, unless reevaluate.compare_with is best.",
}


@flow(name="reevaluate", persist_result=False)
def reevaluate(
    preset: PresetName = "meadow",
    annotator: str | None = None,
    run_name: str | None = None,
    alias: str | None = None,
    last_days: float | None = None,
    fail_on_alarm: bool = False,
    overrides: dict[str, Any] = NO_OVERRIDES,
    budget_usd: float | None = None,
    retry_missing: bool = False,
) -> State:
    """Policies of the store → judged where something changed → win rates over time → alarms.

    Args:
        preset: Settings to start from; those of decoding and judging matter here.
        annotator: Judge. Empty keeps the preset's.
        run_name: Prefix of the artifacts' names; the history is NAME-history. Empty takes the preset's name.
        alias: Evaluate every policy that has this alias, for example `candidate`.
        last_days: Without an alias: the newest version of each policy made in so many days; 0 = however old.
        fail_on_alarm: End the run as failed when a model fell or the judge drifted.
        overrides: Settings by dotted key, for example {"reevaluate.reference": "policy/meadow-sft@v1"}.
        budget_usd: Most that the runs of one day may spend on API calls. Empty keeps the preset's.
        retry_missing: Ask again for annotations that an earlier run could not get.
    """
    chosen: dict[str, Any] = {"reevaluate.alias": alias, "reevaluate.last_days": last_days}
    settings = {key: value for key, value in chosen.items() if value is not None} | dict(overrides)
    if fail_on_alarm:
        settings["reevaluate.fail_on_alarm"] = True
    # A budget of its own for each day: one for all nights would be used up for good.
    account = f"{run_name or preset}-reevaluate-{datetime.now(UTC):%Y-%m-%d}"
    settings.setdefault("execution.budget_account", account)
    state = launch("reevaluate", preset, annotator, run_name, settings, retry_missing, budget_usd)
    if not state.is_completed():
        return state
    made = state.result()
    alarms = read_history(made["history"].open(Store()))[-1]["alarms"]
    fail = build_study(preset, settings, annotator).reevaluate.fail_on_alarm
    return _raise_alarms(state, alarms, run_name or preset, fail)


def _raise_alarms(state: State, alarms: Sequence[Mapping[str, Any]], name: str, fail: bool) -> State:
    if not alarms:
        return state
    for alarm in alarms:
        emit_event(
            event=f"alpaca-farm.alarm.{alarm['kind']}",
            resource={"prefect.resource.id": f"alpaca-farm.{alarm['kind']}.{alarm['name']}"},
            payload=dict(alarm),
        )
    told = "\n".join(f"- {escaped(str(alarm['text']))}" for alarm in alarms)
    create_markdown_artifact(
        f"**{len(alarms)} alarm{'' if len(alarms) == 1 else 's'}**\n\n{told}",
        key=artifact_key(name, "alarms"),
        description="What has become worse",
    )
    text = "; ".join(str(alarm["text"]) for alarm in alarms)
    if not fail:
        return Completed(data=state.result(), message=f"Alarm: {text}")
    advice = [_ADVICE[kind] for kind in sorted({str(alarm["kind"]) for alarm in alarms})]
    error = RegressionError(f"Alarm: {text}.", f"See the history artifact. {' '.join(advice)}")
    return Failed(name="Regression", message=str(error), data=error)
