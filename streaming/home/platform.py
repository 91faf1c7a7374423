"""Whether this process runs on a platform that starts Spark itself."""

from __future__ import annotations

import os
from collections.abc import Mapping

_RUNTIME = "DATABRICKS_RUNTIME_VERSION"


def is_on_platform(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether Spark is there already, and is not this process's to start or to end."""
    return bool(environ.get(_RUNTIME))
