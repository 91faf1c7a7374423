"""What deciding has to remember of the rows so far: profiles, calibration, open rules over two events."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from streaming.detection.checkpoint_files import ScorerSnapshot
from streaming.detection.scored import ScoredBatch
from streaming.detection.scoring import Scorer
from streaming.rules.patterns import Patterns, Recognised


@dataclass(eq=False)
class Memory:
    """The state of one version. It outlives a change of rules, and goes on under any spec that scores alike.

    Attributes:
        has_decided: rows were committed since it was last restored, so that it knows all patterns in force.
    """

    scorer: Scorer
    patterns: Patterns = field(default_factory=Patterns)
    has_decided: bool = False

    @property
    def next_sequence(self) -> int:
        """`sequence` of the next row."""
        return self.scorer.next_sequence

    def commit(self, scored: ScoredBatch, recognised: Recognised) -> None:
        """Make the state after a batch the current one; see Scorer.commit."""
        self.scorer.commit(scored)
        self.patterns.commit(recognised)

    def snapshot(self) -> ScorerSnapshot:
        """Copy the whole state; see Scorer.snapshot."""
        return replace(self.scorer.snapshot(), patterns=self.patterns.snapshot())

    def restore(self, saved: ScorerSnapshot) -> None:
        """Continue from a snapshot; see Scorer.restore."""
        self.scorer.restore(saved)
        self.patterns.restore(saved.patterns)
