"""What a text of JSON holds, whatever is wrong with single values of it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from streaming.events.json_mend import mend

# Characters that are merely written unescaped, such as tabs, do no harm.
_JSON = json.JSONDecoder(strict=False)
_BLANK, _OUTLINED = b" \n\r\t", (b"{", b"[", b'"')


def json_value(text: bytes) -> Any:
    """Return what a text holds: bytes that are not UTF-8 are lone surrogates, and see json_mend.

    Raises:
        ValueError: nobody can say where its values begin and end.
    """
    with contextlib.suppress(ValueError, RecursionError):
        return _decoded(text)
    if not text.lstrip(_BLANK).startswith(_OUTLINED):
        raise ValueError("a mere word has no outline, and would be mended to {}")
    return _decoded(mend(text))


def _decoded(text: bytes) -> Any:
    return _JSON.decode(text.decode("utf-8", "surrogateescape"))
