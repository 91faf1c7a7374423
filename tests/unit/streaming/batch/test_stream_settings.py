"""How Spark gets the checkpoint of a stream: as a folder of this machine, wherever it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.subscription import Subscription
from streaming.batch.stream_settings import StreamSettings


@pytest.mark.parametrize("place", ["/home/checkpoints/a", "/home/of Ada/100%25/ü#1"])
def test_the_checkpoint_is_named_as_a_folder_of_this_machine(place: str) -> None:
    settings = StreamSettings("one:9092", Subscription(("a",)), Path(place), 1, 1, "earliest")
    assert settings.checkpoint_location == f"file://{place}"
