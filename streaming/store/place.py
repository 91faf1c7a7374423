"""A place in a store: a folder or file on this machine, or a prefix or object of an object store.

Credentials are never part of a place: deltalake and obstore take them from their environment and profiles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from schemas.addresses import scheme_of
from schemas.errors import ConfigurationError

_REMOTE = ("s3", "az", "abfss")
_SPELT = {"s3a": "s3", "s3n": "s3", "azure": "az", "abfs": "abfss", "adl": "abfss"}
_VOLUME = re.compile(r"(?:file:)?/*(?:dbfs:/+)?(?:Volumes|dbfs)/|dbfs:")
_NOT_TRIED = ("gs", "gcs")
SCHEMES = (*_REMOTE, *_SPELT, *_NOT_TRIED)
_BUCKET = re.compile(r"[A-Za-z0-9._-]+")
# Delta's library stops at the former in a name, and reads the latter as another one than the store's client.
_UNUSABLE = re.compile(r"[\[\]^|\\]|%[0-9A-Fa-f]{2}")


@dataclass(frozen=True)
class Place:
    """Where something lies.

    Attributes:
        uri: an absolute path of this machine, or `s3://bucket/key`, `az://container/key`,
            `abfss://container@account.host/key`; no slash at its end.
        options: how the store is reached, in the names that deltalake and obstore share; never a credential.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, given: str, where: str) -> Place:
        """Return the place that a URI or a path names.

        Args:
            given: a URI, or a path, relative ones to the working folder.
            where: the setting that holds it, for errors.

        Raises:
            ConfigurationError: a store that is not supported, or a URI that holds more than a place.
        """
        check_no_volume(given, where)
        scheme = _scheme(given.strip())
        if scheme is None:
            return cls(str(resolved(Path(given), where)))
        parts = _parts(given, where)
        if scheme == "file":
            return cls(_local_path(unquote(parts.path), parts.netloc, where))
        _check_scheme(scheme, where)
        _check_parts(given, scheme, where)
        return cls(f"{scheme}://{parts.netloc}{parts.path}".rstrip("/"))

    @classmethod
    def local(cls, path: Path) -> Place:
        """Return the place of a file or folder of this machine."""
        return cls(str(path))

    @property
    def is_local(self) -> bool:
        """Whether it lies on a file system of this machine."""
        return "://" not in self.uri

    @property
    def path(self) -> Path:
        """The path on this machine.

        Raises:
            ConfigurationError: it lies in an object store.
        """
        if not self.is_local:
            raise ConfigurationError("this works on a folder of this machine only", where=self.uri)
        return Path(self.uri)

    @property
    def name(self) -> str:
        """The last part of its name."""
        return self.uri.rpartition("/")[2]

    @property
    def parent(self) -> Place:
        """What it lies in."""
        return Place(self.uri.rpartition("/")[0], self.options)

    @property
    def storage_options(self) -> dict[str, str] | None:
        """What deltalake takes, None for this machine."""
        return None if self.is_local else dict(self.options)

    def __truediv__(self, name: str) -> Place:
        """Return what lies in it by that name."""
        return Place(f"{self.uri}/{name}", self.options)

    def __str__(self) -> str:
        """Return the URI or path."""
        return self.uri


def check_no_volume(given: str, where: str) -> None:
    """Refuse a volume or the file system of a Databricks workspace, which take no Delta log.

    Args:
        given: a URI, or a path.
        where: the setting that holds it.

    Raises:
        ConfigurationError: it is one.
    """
    if _VOLUME.match(given):
        raise ConfigurationError(
            f"{given}: a Delta table on a volume is not safe: its file system has no commit that only one of "
            "two writers can make; name the external location itself, s3://… or abfss://…",
            where=where,
        )


def _scheme(given: str) -> str | None:
    found = scheme_of(given)
    return None if found is None else _SPELT.get(found.lower(), found.lower())


def resolved(folder: Path, where: str) -> Path:
    """Return where a folder really lies.

    Args:
        where: who named it, for errors.

    Raises:
        ConfigurationError: its links lead in a circle.
    """
    try:
        return folder.resolve()
    except (RuntimeError, OSError):  # of Python below 3.13, and from there on
        raise ConfigurationError("its links lead in a circle: name a folder", where=where) from None


def _local_path(path: str, host: str, where: str) -> str:
    if host not in {"", "localhost"} or not path.startswith("/"):
        raise ConfigurationError(f"expected file:///absolute/path, got a host {host!r}", where=where)
    return str(resolved(Path(path), where))


def _parts(given: str, where: str) -> SplitResult:
    if given != given.strip() or not given.isprintable():
        # With a blank before it, it would be a folder of this machine.
        raise ConfigurationError("it has blanks around it, or characters that cannot be seen", where=where)
    try:
        return urlsplit(given)
    except ValueError:
        raise ConfigurationError(
            "expected a URI such as s3://bucket/prefix, or a path", where=where
        ) from None


def _check_scheme(scheme: str, where: str) -> None:
    if scheme in _NOT_TRIED:
        raise ConfigurationError(
            "gs:// is not supported, since no test covers it; use s3://, az:// or abfss://, or a folder",
            where=where,
        )
    if scheme not in _REMOTE:
        raise ConfigurationError(
            f"{scheme}:// is not supported; use s3://, az://, abfss://, file:// or a path", where=where
        )


def _check_parts(given: str, scheme: str, where: str) -> None:
    parts = urlsplit(given)
    if parts.query or parts.fragment or parts.password is not None:
        raise ConfigurationError(
            "a store is named without query, fragment or login: "
            "credentials come from the environment or a profile",
            where=where,
        )
    if parts.username is not None and scheme != "abfss":
        raise ConfigurationError(
            f"{scheme}:// takes no login: credentials come from the environment", where=where
        )
    if scheme == "abfss" and (not parts.username or not parts.hostname):
        raise ConfigurationError(
            "expected abfss://container@account.dfs.core.windows.net/prefix", where=where
        )
    if scheme != "abfss" and _BUCKET.fullmatch(parts.netloc) is None:
        raise ConfigurationError(f"expected {scheme}://bucket/prefix", where=where)
    if found := _UNUSABLE.search(parts.path):
        raise ConfigurationError(f"a prefix cannot hold {found[0]}: name one without it", where=where)
    prefix = parts.path.removeprefix("/").removesuffix("/")
    if prefix and any(part in {"", ".", ".."} for part in prefix.split("/")):
        raise ConfigurationError("a prefix has no empty parts, and neither . nor ..", where=where)
