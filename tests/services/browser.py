"""Prefect's UI in a real browser, as far as the tests need it: Debian's chromium, driven by playwright."""

import json
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def page(user=None):
    """A page of 1400 × 1000 points; skips the test where there is no browser."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra 'slow')")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            context = browser.new_context(viewport={"width": 1400, "height": 1000}, http_credentials=user)
            yield context.new_page()
        finally:
            browser.close()


def fill_json(page, label, value):
    """Replace the content of a JSON editor of the form, whose brackets would close themselves when typed."""
    editor = page.locator("[data-slot='form-item'], .p-label, fieldset, div").filter(has_text=label).last
    box = editor.locator(".cm-content").last
    box.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(json.dumps(value))
