"""The loop over alerts refuses what it cannot do before it asks anybody."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigurationError
from streaming.consume import alerts


def test_a_group_of_flagstream_s_own_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(ConfigurationError, match="groups that begin with flagstream-"):
        alerts("alerts", group="flagstream-payments-marker", brokers="127.0.0.1:1")
