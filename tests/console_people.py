"""People at the console in a real Chromium: a lake with a server over it, and who signs in there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2

from schemas.spec import AgentSpec
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.browser import FLAGS, axe_script, installed_browser
from streaming.testing.drivers import wait_until
from streaming.tokens.bearer import NewToken, Scope, draw
from streaming.tokens.token_table import TokenTable
from tests.served import served

CACHE = Settings.load(Path("var")).cache
HOSTILE = (
    '<script>window.hurt=1</script><img src=x onerror="window.hurt=1">\u202egro.live\u202c\x1b[31m{{7*7}}'
)
THEMES = ("light", "dark")
MOST_PICTURE_BYTES = 150_000
MOST_MILLISECONDS = 20_000.0
WIDE = {"width": 1180, "height": 720}
PHONE = {"width": 390, "height": 800}
SERIOUS = {"serious", "critical"}

People = Callable[..., AbstractContextManager[Any]]


class House:
    """A lake with a server over it, and people with tokens."""

    def __init__(self, settings: Settings, spec: AgentSpec) -> None:
        self.settings, self.spec, self.address = settings, spec, ""
        self.tokens: dict[str, NewToken] = {}

    def code(self, name: str, scope: Scope = "triage") -> str:
        """Draw a code, as `flagstream console` does."""
        if name not in self.tokens:
            self.tokens[name] = draw()
            table = TokenTable(PlacedAgent(self.settings, self.spec))
            table.add(self.tokens[name], name, [scope], 10_000, None, "tests")
        headers = {"Authorization": f"Bearer {self.tokens[name].text.get_secret_value()}"}
        answers = list[httpx2.Response]()

        def is_known() -> bool:
            answers.append(httpx2.post(f"{self.address}/v1/console/codes", headers=headers))
            return answers[-1].status_code == 200

        wait_until(is_known, 30, "the server to know a new token")
        return str(answers[-1].json()["code"])

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a table of the lake."""
        found = read_stored(self.settings.lake(self.spec.name) / table)
        return [] if found is None else found.to_pylist()


@contextmanager
def house_of(settings: Settings, spec: AgentSpec) -> Iterator[House]:
    """Serve a lake that was built."""
    found = House(settings, spec)
    with served(settings.home, spec) as (found.address, _):
        yield found


@contextmanager
def started_browser() -> Iterator[Any]:
    """Start Chromium."""
    browser = installed_browser(CACHE)
    sys.path.insert(0, str(browser.driver))
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- it is installed by the line above

    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=str(browser.program), args=list(FLAGS), env=dict(browser.environment)
        )
        yield started
        started.close()


def people_of(house: House, browser: Any) -> People:
    """Return a way to sign somebody in; their page has run nothing that is not ours when it is closed."""

    @contextmanager
    def signed_in(
        name: str = "anna", theme: str = "light", size: dict[str, int] = WIDE, scope: Scope = "triage"
    ) -> Iterator[Any]:
        context = browser.new_context(viewport=size, color_scheme=theme, base_url=house.address)
        page, faults = context.new_page(), list[str]()
        page.set_default_timeout(MOST_MILLISECONDS)
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
        page.goto(f"/console/sign-in?code={house.code(name, scope)}")
        page.click("button.primary")
        page.wait_for_selector("#queue")
        yield page
        assert faults == []
        assert page.evaluate("window.hurt") is None
        context.close()

    return signed_in


def said(page: Any, words: str) -> None:
    """Wait until the page says something."""
    page.wait_for_selector(f"#toast:has-text('{words}')")


def check_looks(page: Any, what: str) -> None:
    """Check that a page has no serious fault of accessibility, and does not scroll sideways."""
    page.evaluate(axe_script(CACHE))
    found = page.evaluate("axe.run().then((all) => all.violations)")
    serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in SERIOUS]
    assert serious == [], what
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, (what, "it scrolls sideways")


def picture(page: Any, path: Path, of_docs: str | None = None) -> None:
    """Take a picture.

    Args:
        of_docs: what it is called in docs, if it is one of those; it must be small, and is kept there where
            CONSOLE_PICTURES names the folder.
    """
    page.screenshot(path=str(path))
    if of_docs is not None:
        assert path.stat().st_size < MOST_PICTURE_BYTES
        wanted = os.environ.get("CONSOLE_PICTURES")
        if wanted:
            (Path(wanted) / f"console-{of_docs}.png").write_bytes(path.read_bytes())
