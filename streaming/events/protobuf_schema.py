"""Protobuf schemas as writers registered them: from the text of `.proto` files to descriptors of messages."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import grpc_tools
from google.protobuf import descriptor_pb2, descriptor_pool

from schemas.schema_texts import SchemaText
from streaming.events.avro_schema import UnusableSchemaError

_MOST_KEPT = 256
_SECONDS = 60
_MAIN = "flagstream_main.proto"
_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def message_by_name(text: SchemaText, name: str | None) -> Any:
    """Return the descriptor of a message, the first one's without a name.

    Raises:
        UnusableSchemaError: the schema cannot be compiled, or has no such message.
    """
    return message_at(text, (0,)) if name is None else _named(text, name)


def message_at(text: SchemaText, places: Sequence[int]) -> Any:
    """Return the descriptor of a message by its place in the file, then within messages.

    Raises:
        UnusableSchemaError: see message_by_name.
    """
    inner = _compiled(text).FindFileByName(_MAIN).message_types_by_name.values()
    found = None
    for place in places:
        if place >= len(inner):
            raise UnusableSchemaError("has no such message")
        found = inner[place]
        inner = found.nested_types
    return found


def _named(text: SchemaText, name: str) -> Any:
    try:
        return _compiled(text).FindMessageTypeByName(name)
    except KeyError:
        raise UnusableSchemaError("has no such message") from None


def _compiled(text: SchemaText) -> Any:
    made = _compiled_once(text)
    if isinstance(made, UnusableSchemaError):
        raise UnusableSchemaError(str(made))
    return made


@lru_cache(_MOST_KEPT)
def _compiled_once(text: SchemaText) -> Any:
    """Return the descriptors of a file and those that it imports, or why there are none.

    What cannot be compiled is remembered like all else: every record that names it asks for it.
    """
    try:
        return _descriptor_pool(text)
    except UnusableSchemaError as fault:
        return fault


def _descriptor_pool(text: SchemaText) -> Any:
    """Compile a file and those that it imports, by the compiler of Protobuf itself."""
    with tempfile.TemporaryDirectory(prefix="flagstream-proto-") as folder:
        for name, content in zip((*text.names, _MAIN), (*text.references, text.text), strict=True):
            _put(Path(folder), name, content)
        files = _descriptors(Path(folder))
    pool = descriptor_pool.DescriptorPool()
    for each in files.file:
        pool.AddSerializedFile(each.SerializeToString())
    return pool


def _put(folder: Path, name: str, content: str) -> None:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise UnusableSchemaError("imports a file by a name that leads elsewhere")
    path = folder / parts
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", errors="surrogatepass")


def _descriptors(folder: Path) -> Any:
    out = folder / "descriptors"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"-I{_KNOWN}"]
    command += ["--include_imports", f"--descriptor_set_out={out}", _MAIN]
    done = subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS)
    if done.returncode != 0 or not out.exists():
        raise UnusableSchemaError("not a schema of Protobuf, or it imports what is not there")
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
