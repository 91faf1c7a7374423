"""The one way out to people and programs: no text that others have written steers a terminal or a page.

Ids, currencies, topics and texts come from outsiders. On a terminal everything that would not be seen, such
as escape sequences and marks that turn the direction of writing, is written out; nothing is taken for markup.
JSON is plain ASCII, so that it holds the very text and reads back as it was.
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Callable, Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from agent.triage.untrusted_text import escaped, shows
from streaming.output.redaction import redacted

_NOT_PLAIN = re.compile(r"[^\n\x20-\x7e]")


class Terminal(Console):
    """A console on which every text is shown as what it is.

    Args:
        stderr: whether it is standard error, not standard output.
        file: written to instead of either.
        width: in columns; that of the terminal unless given.
    """

    def __init__(
        self, *, stderr: bool = False, file: IO[str] | None = None, width: int | None = None
    ) -> None:
        super().__init__(stderr=stderr, file=file, width=width, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See Console: every table, title and line comes by here before it is cut to its place."""
        for each in super().render(renderable, options):
            yield each if each.control else Segment(escaped(each.text, lines=True), each.style)


def progress_bar() -> Progress:
    """Return a bar on standard error, which shows nothing where that is no terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    console = Terminal(stderr=True)
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not sys.stderr.isatty())


def say_line(text: str, *, end: str = "\n") -> None:
    """Print lines on standard output, at once."""
    print(escaped(text, lines=True), end=end, flush=True)


def say_error(text: str, *, end: str = "\n") -> None:
    """Print lines on standard error, at once, without secrets."""
    sys.stderr.write(f"{escaped(redacted(text), lines=True)}{end}")
    sys.stderr.flush()


def print_json(
    content: Any,
    *,
    indent: int | None = None,
    default: Callable[[Any], object] | None = None,
    readable: bool = False,
) -> None:
    """Print a value as JSON on standard output, at once.

    Args:
        content: the value.
        indent: as for json.dumps.
        default: makes something JSON-serialisable of what is not.
        readable: leave letters of other languages as they are, as far as standard output has them.
    """
    document = json.dumps(content, indent=indent, default=default, ensure_ascii=not readable)
    print(_readable_json(document) if readable else plain_json(document), flush=True)


def print_json_text(document: str) -> None:
    """Print a JSON document in plain ASCII; beyond that it stays as it is written."""
    print(plain_json(document), flush=True)


def plain_json(document: str) -> str:
    """Return the same JSON document in printable ASCII."""
    return _NOT_PLAIN.sub(_as_json_escape, document)


def _readable_json(document: str) -> str:
    """Return the same JSON document, of which all is seen."""
    shown = "".join(each if shows(each) or each == "\n" else plain_json(each) for each in document)
    try:
        shown.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return plain_json(document)
    return shown


def html_text(text: str) -> str:
    """Return a text as it may stand in a page."""
    return html.escape(escaped(text, lines=True))


def _as_json_escape(found: re.Match[str]) -> str:
    # Outside of strings JSON has nothing but ASCII, inside any character may be escaped.
    if found[0] in "\r\t":
        return " "
    units = found[0].encode("utf-16-be", "surrogatepass").hex(" ", 2).split()
    return "".join(f"\\u{unit}" for unit in units)
