"""The full RLHF flow as its users start it: in a browser, twice, with one setting changed."""

import json
import os
import re
import shutil

import pytest

from tests.services.farm import running
from tests.tiny import TINY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: slow)")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)"),
]
PATIENCE_MS = 180_000  # server, workers and browser on one crowded core: a click has taken more than a minute
sync_api.expect.set_options(timeout=PATIENCE_MS)
CHANGED = {**TINY, "ppo.kl_coef": 0.0375}


@pytest.fixture
def page():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1100})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


def start(page, address):
    """Fill the form of the full RLHF deployment in and submit it; return the run's id."""
    page.goto(f"{address}/v2/deployments")
    page.get_by_placeholder("Search deployments").fill("rlhf")  # the list has more than one page
    page.get_by_role("link", name="rlhf", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    custom = page.get_by_role("menuitem", name=re.compile("Custom"))
    custom.click()
    page.get_by_role("tab", name="str").nth(1).click()
    page.get_by_role("tabpanel", name="str").get_by_role("textbox").fill("browser")
    page.locator("[contenteditable=true]").last.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(json.dumps(CHANGED))
    page.screenshot(path=f"{page.shots}/form.png", full_page=True)
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("link", name="View run").or_(page.get_by_role("button", name="View run")).first.click()
    page.wait_for_url("**/runs/flow-run/**")
    return re.search(r"flow-run/([0-9a-f-]+)", page.url).group(1)


def watch(page, up, run_id, name):
    """Stay on the run's page until the run is Completed; photograph its graph and its tasks."""
    up.wait_for_state(run_id, "Completed", seconds=400)
    page.reload()  # the graph of a page that was opened before its run began stays empty
    sync_api.expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    page.wait_for_timeout(2000)  # the graph is drawn after the state
    page.screenshot(path=f"{page.shots}/{name}-graph.png")
    page.get_by_role("tab", name="Task Runs").click()
    page.wait_for_timeout(1500)
    page.screenshot(path=f"{page.shots}/{name}-tasks.png", full_page=True)


def test_the_full_flow_from_the_browser_then_the_same_from_the_store(page, tmp_path):
    page.shots = tmp_path
    with running(tmp_path / "up") as up:
        address = f"http://127.0.0.1:{up.port}"
        first = start(page, address)
        watch(page, up, first, "first")
        assert up.run(first)["parameters"]["overrides"]["ppo.kl_coef"] == 0.0375
        assert set(up.task_states(first).values()) == {"Completed"}
        sync_api.expect(page.get_by_text("Cached", exact=True)).to_have_count(0)

        page.get_by_role("tab", name="Artifacts").click()
        sync_api.expect(page.get_by_text("browser-leaderboard").first).to_be_visible()
        page.screenshot(path=f"{tmp_path}/artifacts.png", full_page=True)
        page.get_by_text("browser-leaderboard-table").first.click()
        page.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()
        sync_api.expect(page.get_by_text("win %", exact=True).first).to_be_visible()
        page.screenshot(path=f"{tmp_path}/leaderboard.png", full_page=True)

        again = start(page, address)
        watch(page, up, again, "again")
        states = up.task_states(again)
        assert set(states.values()) == {"Cached"}
        assert len(states) >= 7
        sync_api.expect(page.get_by_text("Cached", exact=True).first).to_be_visible()
