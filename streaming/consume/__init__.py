"""Alerts for the programs of others, as they leave on Kafka: `from streaming.consume import alerts`.

What is promised:

* **Committed alerts only**: what a driver had not finished when it died is never seen.
* **At least once**: how far a group has come is committed after the program has asked for the next alert,
  so one that dies gets its last alerts again. `alert_id` and `revision` say which they are.
* **Revisions are folded**: a higher revision of an `alert_id` replaces the lower ones. Of those fetched
  together the highest alone is given, and none is given that is lower than one given before by the same
  loop. A program that keeps alerts by `alert_id` and never replaces one by a lower revision has exactly what
  was published.
"""

from __future__ import annotations

from streaming.consume.iteration import alerts
from streaming.consume.received import Alert

__all__ = ["Alert", "alerts"]
