"""Which mode pays at the load that a run sees, `execution: local` or `cluster`: weighed, said, never changed.

All of it follows from the seconds that the steps of batches have taken here. While a batch is scored and
closed, the next one is read and decoded, and it is stored once the one before is closed; so a batch takes as
long as the longer of the two, and storing. Executors would take reading and decoding away.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from streaming.batch.steps import BatchStep
from streaming.output.log import log
from streaming.service.health import is_running
from streaming.setup.machine_limits import machine_limits
from streaming.store.whole_files import replace_file

_WINDOW_SECONDS, _WINDOW_BATCHES = 60.0, 10
_SAID_SECONDS = 600.0
_KEEPS_UP, _IDLE, _WORTH_IT, _ALL_CORES = 0.7, 0.5, 1.3, 0.9
_READING = (BatchStep.TAKE, BatchStep.DECODE)
_STORING = (BatchStep.OPEN, BatchStep.STORE)

Mode = Literal["local", "cluster"]


@dataclass(frozen=True)
class ModeAdvice:
    """What a while of batches says.

    Attributes:
        execution: the mode of the run.
        pays: the mode that pays at this load, None where that is not measured.
        why: in a sentence.
        events_per_s: records read a second.
        busy: share of the time that batches fill.
        reading: share of reading and decoding in the seconds of all steps.
        cores_busy: cores that this process and those it has started keep busy.
        at_best: how many times as many events there would be without reading and decoding; what executors
            cost is not taken off, so they bring less.
    """

    execution: Mode
    pays: Mode | None
    why: str
    events_per_s: float
    busy: float
    reading: float
    cores_busy: float
    at_best: float


def weighed(
    seconds: Mapping[str, float], events: int, wall: float, cores_busy: float, cores: float, execution: Mode
) -> ModeAdvice:
    """Weigh what batches have taken.

    Args:
        seconds: of each step, over all of them.
        events: records that they have read.
        wall: seconds in which they came.
        cores_busy: cores that this process and those it has started have kept busy.
        cores: that there are.
        execution: the mode they were taken in.
    """
    reading, storing = (sum(seconds.get(each, 0.0) for each in part) for part in (_READING, _STORING))
    rest = sum(seconds.values()) - reading - storing
    cycle, without = max(reading, rest) + storing, max(rest + storing, 1e-9)
    # Where all cores are busy, what is done beside takes its time from the rest.
    is_full = cores_busy >= _ALL_CORES * cores
    at_best = (reading + rest + storing if is_full else cycle) / without
    share, busy = reading / max(sum(seconds.values()), 1e-9), min(1.0, cycle / wall)
    pays, why = _verdict(execution, share, busy, at_best)
    figures = (events / wall, busy, share, cores_busy, at_best)
    return ModeAdvice(execution, pays, why, *(round(each, 3) for each in figures))


def _verdict(execution: Mode, share: float, busy: float, at_best: float) -> tuple[Mode | None, str]:
    fill = f"batches fill {busy:.0%} of the time"
    if execution == "cluster":
        more = "; execution: local may do" if busy < _IDLE else ""
        return None, f"{fill}, and what reading would take here is not measured while executors do it{more}"
    if busy < _KEEPS_UP:
        return "local", f"{fill}, so this machine keeps up"
    reads = f"{fill}, reading and decoding are {share:.0%} of the seconds of steps"
    if at_best < _WORTH_IT:
        return "local", f"{reads}: without them there would be {at_best:.1f} times as many events at best"
    return "cluster", f"{reads}, which executors would take: at best {at_best:.1f} times as many events"


class ModeWatch:
    """Adds up closed batches for a minute at a time, keeps what they say, and logs where it changes.

    Args:
        agent: its name.
        file: of the agent's conditions; what is found is kept beside it.
        execution: the mode of the run.
        cpu: seconds of processor time so far; of this process and those it has started unless given.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        agent: str,
        file: Path,
        execution: Mode,
        cpu: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent, self._file, self._execution = agent, file, execution
        self._cpu, self._clock = cpu or _cpu_of_all, clock
        self._said: Mode | None = None
        self._said_at = -_SAID_SECONDS
        self._seconds, self._events, self._batches = Counter[str](), 0, 0
        self._begun, self._used = self._clock(), self._cpu()

    def closed(self, row: Mapping[str, Any]) -> None:
        """Count a batch by its row of `batches`."""
        self._seconds.update(json.loads(row["durations"]))
        self._events, self._batches = self._events + row["read"], self._batches + 1
        wall = self._clock() - self._begun
        if wall < _WINDOW_SECONDS or self._batches < _WINDOW_BATCHES:
            return
        busy, cores = max(0.0, self._cpu() - self._used) / wall, machine_limits().cores
        self._report(weighed(self._seconds, self._events, wall, busy, cores, self._execution))
        self._begin()

    def _begin(self) -> None:
        self._seconds, self._events, self._batches = Counter[str](), 0, 0
        self._begun, self._used = self._clock(), self._cpu()

    def _report(self, found: ModeAdvice) -> None:
        with suppress(OSError):  # of a disk that takes nothing: a condition says so
            replace_file(_beside(self._file), json.dumps(asdict(found)).encode())
        # The mode that the run has is news only after another one was said to pay.
        is_news = found.pays not in (None, self._said or self._execution)
        if is_news and self._clock() >= self._said_at + _SAID_SECONDS:
            self._said, self._said_at = found.pays, self._clock()
            said = f"execution: {found.pays} pays at this load: {found.why}"
            log("execution_weighed", said, agent=self._agent, **asdict(found))


def read_mode(file: Path) -> ModeAdvice | None:
    """Return what the run has found that keeps this file of conditions, None where it has not yet."""
    if not is_running(file):
        return None
    with suppress(OSError, ValueError, TypeError):
        return ModeAdvice(**json.loads(_beside(file).read_text(encoding="utf-8")))
    return None


def forget_mode(file: Path) -> None:
    """Remove what an earlier run has kept."""
    with suppress(OSError):
        _beside(file).unlink(missing_ok=True)


def _beside(file: Path) -> Path:
    return file.with_suffix(".mode.json")


def _cpu_of_all() -> float:
    own = psutil.Process()
    total = 0.0
    for each in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):
            total += sum(each.cpu_times()[:2])
    return total
