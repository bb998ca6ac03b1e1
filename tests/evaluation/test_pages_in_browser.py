"""The pages as people open them: from file://, wide and narrow, light and dark, in a real browser."""

import os
import shutil

import pytest

from alpaca_farm_core.evaluation.overoptimisation import write
from alpaca_farm_core.evaluation.report.config import ReportConfig
from alpaca_farm_core.evaluation.report.models import models_facts, models_page
from alpaca_farm_core.evaluation.report.stage import STAGE_REPORT
from alpaca_farm_core.evaluation.scoring import ScoreOptions, score_files
from tests.evaluation.annotation_rows import made_up, write_json
from tests.evaluation.fake_run import run
from tests.evaluation.test_overoptimisation import run as made_up_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: slow)")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(made_run, tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    report = run(STAGE_REPORT, ReportConfig(title="meadow", method="ppo"), made_run, root / "report")
    files = [write_json(root / f"{name}.json", made_up(200, name)[0]) for name in ("ppo", "a-model-with-a-long-name")]
    models = root / "models.html"
    models.write_text(models_page(models_facts(score_files(files, ScoreOptions()), "Models")), encoding="utf-8")
    facts = write.study_facts({"ppo": {seed: made_up_run(seed, [0.2, 0.6, 0.4]) for seed in range(3)}})
    study = root / "overoptimisation.html"
    study.write_text(write.page(facts), encoding="utf-8")
    return {"report": report.path / "report.html", "models": models, "overoptimisation": study}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", ["report", "models", "overoptimisation"])
def test_a_page_opens_from_disk(browser, pages, name, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(pages[name].as_uri())
    assert said == []
    assert asked == [pages[name].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # Nothing of a picture sticks out of the page, and every picture has a size.
    boxes = page.evaluate(
        "[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect()).map(b => [b.width, b.height])"
    )
    assert boxes
    assert all(w > 100 and h > 40 for w, h in boxes)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, dark[4:-1].split(","))) < 200) == (scheme == "dark")
    assert context.pages == [page]
    context.close()
