"""The files that a spec names: whoever may choose a candidate may not choose any file of the machine."""

from __future__ import annotations

from schemas.documents import is_path
from schemas.spec import AgentSpec


def files_of(spec: AgentSpec) -> frozenset[str]:
    """Return the files that a spec names, as it names them."""
    named = {name for name in (spec.data_sources.transactions.contract, spec.policy) if is_path(name)}
    always = (spec.rules_file, None if spec.model is None else spec.model.path)
    return frozenset(named | {name for name in always if name is not None})
