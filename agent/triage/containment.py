"""Keeps a fault that one group of alerts meets from reaching the others."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from schemas.errors import FlagstreamError

Result = TypeVar("Result")


class Faults:
    """Runs calls that must not fail together, and notes what befell them."""

    def __init__(self) -> None:
        self._noted: dict[str, None] = {}

    @property
    def noted(self) -> tuple[str, ...]:
        """What was raised and where, each once; never its message, which may quote outsiders."""
        return tuple(self._noted)

    def contain(self, call: Callable[[], Result], otherwise: Result) -> Result:
        """Return what `call` gives, `otherwise` where it raises.

        Raises:
            FlagstreamError: as the call raises it: a store of ours has failed, which is no group's fault.
        """
        try:
            return call()
        except FlagstreamError:
            raise
        except Exception as fault:
            at = traceback.extract_tb(fault.__traceback__)[-1]
            self._noted[f"{type(fault).__name__} at {Path(at.filename).name}:{at.lineno}"] = None
            return otherwise
