"""How a task reaches the store: by what is configured on its node, or by what the workspace vends for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ConfigurationError, nearest

CONFIGURED, VENDED = "configured", "vended"
_STORE = "FLAGSTREAM_STORE"


@contextmanager
def store_credentials(how: str, home: Path) -> Iterator[None]:
    """Have the store reached by what is configured, or by what the workspace vends for its location.

    Args:
        how: `configured` or `vended`.
        home: folder of all state on this node.

    Raises:
        ConfigurationError: there is no such way, or nothing is vended for the store.
        RetryableError: the workspace does not answer.
    """
    if how not in (CONFIGURED, VENDED):
        raise ConfigurationError(nearest(how, (CONFIGURED, VENDED)), where="--credentials")
    if how == CONFIGURED:
        yield
        return
    from databricks.sdk.core import ApiClient  # noqa: PLC0415 -- half a second that other tasks need not wait

    from streaming.databricks.vended import VendedCredentials, vending  # noqa: PLC0415 -- as above
    from streaming.databricks.workspace import Workspace, connect  # noqa: PLC0415 -- as above

    vended = VendedCredentials(Workspace(ApiClient(connect(None))), os.environ.get(_STORE, ""))
    with vending(vended, home / "scratch") as variables:
        os.environ.update(variables)
        try:
            yield
        finally:
            for name in variables:  # nobody answers there any more
                os.environ.pop(name, None)
