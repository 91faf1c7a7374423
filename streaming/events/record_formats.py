"""What reads a contract's records: a compiled finder of fields, and exact readers of one value or key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schemas.contract import EventContract
from schemas.event_sources import Part, source_of, sources_of
from streaming.events.avro_fields import AvroFinder, AvroReader
from streaming.events.beside_fields import RecordFinder
from streaming.events.found import FieldFinder
from streaming.events.json_fields import JsonFinder
from streaming.events.key_formats import KeyReader, path_in, with_whole_key
from streaming.events.protobuf_fields import ProtobufFinder, ProtobufReader, WantedFields
from streaming.events.writer_schemas import NO_WRITERS, WriterSchemas

_LONGEST_KEY = 1 << 20


def finder_of(
    contract: EventContract,
    writers: WriterSchemas = NO_WRITERS,
    key_writers: WriterSchemas = NO_WRITERS,
    *,
    from_file: bool = False,
) -> FieldFinder:
    """Return what finds `contract.read_fields`, in their order.

    Args:
        contract: what events mean.
        writers: the schemas by which values were written.
        key_writers: those by which keys were, where the contract names their format.
        from_file: values are JSON made from a file's rows, whose columns are named like the fields.
    """

    def in_value(paths: Sequence[str]) -> FieldFinder:
        written = None if from_file else contract.format.written
        if written is not None and written.kind == "AVRO":
            return AvroFinder(paths, _times(contract, "value"), contract.max_record_bytes, writers)
        if written is not None:
            wanted = WantedFields(tuple(paths), tuple(_times(contract, "value")))
            return ProtobufFinder(wanted, contract.max_record_bytes, writers, written.message)
        framed = contract.format.framed and not from_file
        return JsonFinder(paths, contract.max_record_bytes, framed=framed)

    sources = sources_of(contract.read_fields, from_file=from_file)
    paths = [each.path for each in sources if each.part == "value"]
    if len(set(paths)) == len(sources):
        return in_value(paths)
    return RecordFinder(
        sources,
        [_scalar(contract, each) for each in contract.read_fields],
        in_value,
        lambda paths: _in_key(contract, paths, key_writers),
        whole_key=contract.key_format is not None,
    )


def _in_key(contract: EventContract, paths: Sequence[str], writers: WriterSchemas) -> FieldFinder:
    if contract.key_format is None:
        return JsonFinder(paths, _LONGEST_KEY, framed=False, column="key")
    written, times = contract.key_format.written, _times(contract, "key")
    if written.kind == "AVRO":
        named, timed = ([path_in(each) for each in some] for some in (paths, times))
        return AvroFinder(named, timed, _LONGEST_KEY, with_whole_key(writers), column="key")
    wanted = WantedFields(tuple(paths), tuple(times))
    return ProtobufFinder(wanted, _LONGEST_KEY, writers, written.message, column="key")


def reader_of(contract: EventContract, writers: WriterSchemas) -> AvroReader | ProtobufReader | None:
    """Return what reads one value exactly; None for JSON."""
    written = contract.format.written
    if written is None:
        return None
    if written.kind == "AVRO":
        return AvroReader(writers)
    sources = [source_of(each) for each in contract.read_fields]
    paths = dict.fromkeys(each.path for each in sources if each.part == "value")
    return ProtobufReader(WantedFields(tuple(paths), ()), writers, written.message)


def key_reader_of(contract: EventContract, writers: WriterSchemas) -> KeyReader | None:
    """Return what reads one key exactly; None where the contract names no format of keys."""
    if contract.key_format is None:
        return None
    written = contract.key_format.written
    if written.kind == "AVRO":
        return KeyReader(AvroReader(with_whole_key(writers)), path_in)
    sources = [source_of(each) for each in contract.read_fields]
    paths = dict.fromkeys(each.path for each in sources if each.part == "key")
    return KeyReader(ProtobufReader(WantedFields(tuple(paths), ()), writers, written.message))


def _scalar(contract: EventContract, field: str) -> bool | None:
    """Return whether a text beside the value is read as number or boolean, None where readers differ."""
    asked = {kind != "string" for kind, _ in _readers(contract, field)}
    return asked.pop() if len(asked) == 1 else None


def _times(contract: EventContract, part: Part) -> list[str]:
    """Return the paths in a part of the record that are the event time and nothing else."""
    paths = contract.event_time.sources
    alone = len(paths) == 1 and {role for _, role in _readers(contract, paths[0])} == {"event time"}
    source = source_of(paths[0])
    return [source.path] if alone and source.part == part else []


def _readers(contract: EventContract, field: str) -> Iterator[tuple[str, str]]:
    """Yield type and role of everything that reads a field, by its own name or as an alias."""
    meant = {field, *(name for name, others in contract.aliases.items() if field in others)}
    for column in contract.columns:
        if not meant.isdisjoint(column.sources):
            yield column.json_type, column.role
    if not meant.isdisjoint(contract.judged_fields):
        yield "string", "condition"
