"""What every server, worker and command tells Prefect about telemetry and advertisement; imports nothing."""

from __future__ import annotations

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
}
"""No telemetry and no advertisement, unless the user has set otherwise."""
