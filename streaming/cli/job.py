"""The entry point of tasks on a workspace: `flagstream-job`.

The platform imports it and takes any exit for a failure, one with 0 as well: it returns, or raises what the
page of the run then shows. Commands are separated by `--then`; the first that fails is the last.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from streaming.cli.options import DEFAULT_HOME
from streaming.cli.root import carried_out

_THEN, _KEPT, _CREDENTIALS = "--then", "--kept", "--credentials"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run commands one after the other.

    Args:
        arguments: `--kept FOLDER` and `--credentials HOW` where they are wanted, then the words of the
            commands; those of the process unless given.

    Raises:
        TaskFailedError: one of them has ended with another exit code than 0.
    """
    from streaming.commands.job import TaskFailedError, surroundings

    given, words = _options(list(sys.argv[1:] if arguments is None else arguments))
    home = Path(os.environ.get("FLAGSTREAM_HOME") or DEFAULT_HOME)
    kept = None if _KEPT not in given else Path(given[_KEPT])
    with surroundings(home, kept, given.get(_CREDENTIALS), words[0] if words else ""):
        for command in _separated(words):
            code = carried_out(command)
            if code:
                raise TaskFailedError(
                    f"`flagstream {' '.join(command)}` ended with exit code {code}; its output above says why"
                )


def _options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    found = {}
    while len(words) > 1 and words[0] in (_KEPT, _CREDENTIALS):
        found[words[0]], words = words[1], words[2:]
    return found, words


def _separated(words: Sequence[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for word in words:
        if word == _THEN:
            commands.append([])
        else:
            commands[-1].append(word)
    return commands
