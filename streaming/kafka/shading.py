"""Names of Kafka's classes in the JVM that reads: a platform may have moved those of its own client."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# Databricks has its client in these; whoever names the usual classes there learns that they do not exist.
_MOVED = {
    "org.apache.kafka.": "kafkashaded.org.apache.kafka.",
    "software.amazon.msk.": "shadedmskiam.software.amazon.msk.",
}
_PROBES = {
    "org.apache.kafka.": "kafkashaded.org.apache.kafka.common.security.plain.PlainLoginModule",
    "software.amazon.msk.": "shadedmskiam.software.amazon.msk.auth.iam.IAMLoginModule",
}
_NAMES_CLASSES = ("sasl.jaas.config", "callback.handler.class")


def with_class_names(options: Mapping[str, str], is_loadable: Callable[[str], bool]) -> dict[str, str]:
    """Return options of a reader with the names that classes of Kafka have in its JVM.

    Args:
        options: as for Kafka's own client.
        is_loadable: says whether the JVM has a class.
    """
    if not any(_names_classes(name) for name in options):
        return dict(options)
    moved = {usual: own for usual, own in _MOVED.items() if is_loadable(_PROBES[usual])}
    return {
        name: _renamed(value, moved) if _names_classes(name) else value for name, value in options.items()
    }


def _names_classes(option: str) -> bool:
    return option.endswith(_NAMES_CLASSES)


def _renamed(value: str, moved: Mapping[str, str]) -> str:
    for usual, own in moved.items():
        value = value.replace(own, usual).replace(usual, own)
    return value
