"""The fingerprint of a machine's arithmetic covers what scores are computed with, to the last bit."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.arrays import fingerprint
from streaming.arrays.compilation import Floats

STREAMING = Path(fingerprint.__file__).parents[1]
# What every processor gives alike: sums and products of IEEE 754, comparisons, whole numbers, places.
EXACT = frozenset({
    "abs", "append", "arange", "argmax", "argmin", "argsort", "array", "asarray", "ascontiguousarray",
    "bincount", "clip", "column_stack", "concatenate", "cumsum", "divide", "empty", "empty_like",
    "errstate", "finfo", "flatnonzero", "float32", "float64", "floor", "full", "full_like", "iinfo",
    "int64", "isinf", "isnan", "lexsort", "maximum", "median", "minimum", "ones", "partition",
    "rint", "searchsorted", "sign", "sort", "split", "uint64", "unique", "where", "zeros",
    "zeros_like",
})  # fmt: skip
PARTS = ("kernel_values", "host_values", "interpreted_values")


def anew() -> str:
    return fingerprint.machine_fingerprint.__wrapped__()


def test_a_machine_has_one_fingerprint() -> None:
    assert re.fullmatch(r"1-[0-9a-f]{16}", fingerprint.machine_fingerprint())
    assert {anew(), anew()} == {fingerprint.machine_fingerprint()}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.sampled_from(PARTS), draw=st.data())
def test_the_last_bit_of_any_value_of_any_function_makes_it_another(
    monkeypatch: pytest.MonkeyPatch, part: str, draw: st.DataObject
) -> None:
    values = getattr(fingerprint, part)()
    name = draw.draw(st.sampled_from(sorted(values)))
    place = draw.draw(st.integers(0, len(values[name]) - 1))
    values[name][place] = np.nextafter(values[name][place], np.inf)
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, part, lambda: values)
        assert anew() != fingerprint.machine_fingerprint()


def spread(values: Floats) -> float:
    """Return the share of values whose last six bits are not those of a round number."""
    return float(np.mean(values.view(np.int64) & 63 != 0))


@pytest.mark.parametrize("part", PARTS)
def test_values_are_finite_and_hard_to_round(part: str) -> None:
    for name, values in getattr(fingerprint, part)().items():
        assert np.isfinite(values).all(), name
        assert spread(values) > 0.9, name


def calls(tree: ast.AST, *, compiled: bool) -> Iterator[str]:
    """Yield the functions of `math` and NumPy that are called, in compiled functions or outside of them."""
    kernels = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and is_compiled(node)]
    inside = {id(node) for kernel in kernels for node in ast.walk(kernel)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            if isinstance(of, ast.Name) and of.id in ("np", "math") and (id(node) in inside) == compiled:
                yield f"{of.id}.{node.func.attr}"


def is_compiled(node: ast.FunctionDef) -> bool:
    names = {each.id for each in node.decorator_list if isinstance(each, ast.Name)}
    return bool(names & {"compiled", "inlined"})


def test_whatever_scores_are_computed_with_is_in_it() -> None:
    """A function that scores come to rest on needs a column here, and a new version of the fingerprint."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for package in ("profiles", "detection"):
        for file in sorted((STREAMING / package).glob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for compiled, names in found.items():
                names.update(calls(tree, compiled=compiled))
    in_kernels = {name.partition(".")[2] for name in found[True]}
    assert in_kernels - EXACT == set(fingerprint.KERNEL_FUNCTIONS)
    arrays = {name.removeprefix("np.") for name in found[False] if name.startswith("np.")}
    assert arrays - EXACT <= set(fingerprint.HOST_FUNCTIONS)
    single = {name.removeprefix("math.") for name in found[False] if name.startswith("math.")}
    assert single - EXACT <= set(fingerprint.INTERPRETED_FUNCTIONS)
