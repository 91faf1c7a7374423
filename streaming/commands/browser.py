"""Opens an address in a browser without naming it on a command line, which others on the machine can read."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import threading
import webbrowser
from html import escape
from pathlib import Path

_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={address}">
<title>flagstream</title>
<a href="{address}">Sign in</a>
"""


def open_in_browser(address: str, seconds: float) -> bool:
    """Open an address where somebody sits before a screen, by a file that leads there.

    Without a screen a browser would take the terminal over; BROWSER names one that is meant.

    Args:
        seconds: until the file is removed; it is sooner where this process ends.

    Returns:
        Whether a browser was opened.
    """
    has_screen = sys.platform == "darwin" or any(os.environ.get(each) for each in _SCREENS)
    if not os.environ.get("BROWSER") and not (has_screen and sys.stdout.isatty()):
        return False
    try:
        return webbrowser.open(_page_to(address, seconds).as_uri())
    except (webbrowser.Error, OSError):
        return False


def _page_to(address: str, seconds: float) -> Path:
    """Write a page for this user alone, since the address may sign whoever reads it in."""
    page = Path(tempfile.mkdtemp(prefix="flagstream-")) / "sign-in.html"
    atexit.register(_remove, page.parent)
    # No worker: it removes a file once; the process may end before.
    ending = threading.Timer(seconds, _remove, [page.parent])
    ending.daemon = True
    ending.start()
    with os.fdopen(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(_PAGE.format(address=escape(address)))
    return page


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
