"""Arithmetic over what runs with one and two executors took: where the driver limits a cluster."""

from __future__ import annotations

from dataclasses import dataclass

_CORES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class ClusterRun:
    """What one run took after its first micro-batch, an event.

    Attributes:
        rate: events a second.
        driver, executors: microseconds of processor time.
        serial: microseconds by the clock that the driver is at work for one batch after the other: storing,
            then scoring to closing without the executors' jobs, and asking them for states at a checkpoint.
        store: microseconds of these by the clock until transactions are committed.
        back: bytes that executors sent to the driver.
    """

    rate: float
    driver: float
    executors: float
    serial: float
    store: float
    back: float

    def figures(self) -> dict[str, object]:
        """Return what is printed of it, processor time as seconds per 100,000 events."""
        return {
            "events_per_s": round(self.rate),
            "driver_cpu_s_per_100k": round(self.driver / 10, 3),
            "executors_cpu_s_per_100k": round(self.executors / 10, 3),
            "driver_serial_us": round(self.serial, 2),
            "store_us": round(self.store, 2),
            "bytes_back_per_event": round(self.back, 1),
        }


class RateModel:
    """Events a second by executor cores, from a run with one of them; two bounds, and the truth between.

    Executors share their work evenly and the driver has a core of its own. `at_once`: both are always at
    work, so the slower one says how fast it goes. `in_turns`: they never are.

    Args:
        run: with one core.
    """

    def __init__(self, run: ClusterRun) -> None:
        self._serial, self._executors = run.serial, run.executors
        self._all = run.driver + run.executors

    def at_once(self, cores: int) -> float:
        """Return events a second if nobody waits for the other."""
        return 1e6 / max(self._serial, self._executors / cores)

    def in_turns(self, cores: int) -> float:
        """Return events a second if the driver and executors wait for each other."""
        return 1e6 / (self._serial + self._executors / cores)

    def here(self, machine: int) -> float:
        """Return the most that a machine of so many cores has processor time for, the broker's left out."""
        return machine * 1e6 / self._all

    @property
    def driver_limits_from(self) -> float:
        """The executor cores from which on more of them bring nothing, if nobody waits for the other."""
        return self._executors / self._serial

    def figures(self, measured: dict[int, float], machine: int) -> dict[str, object]:
        """Return the model by cores, beside what was measured with some of them.

        Args:
            measured: cores → events a second.
            machine: cores of the machine that all of it shared.
        """
        rows = [
            {
                "executor_cores": cores,
                "in_turns": round(self.in_turns(cores)),
                "at_once": round(self.at_once(cores)),
                "measured": None if cores not in measured else round(measured[cores]),
            }
            for cores in _CORES
        ]
        return {
            "model": rows,
            "model_of_this_machine": round(self.here(machine)),
            "model_driver_limits_from_cores": round(self.driver_limits_from, 1),
        }
