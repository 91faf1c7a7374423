"""The certificates that Java's properties trust, in librdkafka's names."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path

_STORE = "ssl.truststore."
_WRITE_OUT = (
    "write the certificates out once with `keytool -list -rfc -keystore STORE > ca.pem`, then name ca.pem "
    "and the type PEM"
)
_OLD_FORM = re.compile(r"-----BEGIN (\w+ PRIVATE KEY)-----(?<!ENCRYPTED PRIVATE KEY-----)")


def trusted(known: Mapping[str, str], prefix: str = "ssl") -> dict[str, str]:
    """Return librdkafka's settings for the trust store of Java's properties, empty where none is named.

    Args:
        known: `ssl.truststore.…`, others are ignored.
        prefix: `ssl` for brokers, `https` for who issues tokens.

    Raises:
        ValueError: the store is neither PEM nor PKCS12, or cannot be opened.
    """
    known = as_pem(known)
    if f"{_STORE}certificates" in known:
        return {f"{prefix}.ca.pem": known[f"{_STORE}certificates"]}
    if f"{_STORE}location" not in known:
        return {}
    kind = known.get(f"{_STORE}type", "JKS")
    if kind != "PEM":
        raise ValueError(f"{_STORE}type: PEM or PKCS12 is needed, and none named means JKS: {_WRITE_OUT}")
    if f"{_STORE}password" in known:
        raise ValueError(
            f"{_STORE}password stands beside a store of type PEM, which has none: remove the line"
        )
    if Path(known[f"{_STORE}location"]).is_dir():
        raise ValueError(f"{_STORE}location is a folder, and Spark's client reads one file of certificates")
    return {f"{prefix}.ca.location": known[f"{_STORE}location"]}


def as_pem(known: Mapping[str, str]) -> dict[str, str]:
    """Return properties in which a trust store of type PKCS12 is the text of its certificates.

    So both clients trust the same: Java passes over those that `openssl` has put into such a store.

    Args:
        known: with secrets filled in.

    Raises:
        ValueError: the store cannot be opened, or holds no certificate; without its password.
    """
    place = known.get(f"{_STORE}location")
    if place is None or known.get(f"{_STORE}type") != "PKCS12":
        return dict(known)
    kept = {key: value for key, value in known.items() if not key.startswith(_STORE)}
    text = _certificates_in(Path(place), known.get(f"{_STORE}password", ""))
    return {**kept, f"{_STORE}type": "PEM", f"{_STORE}certificates": text}


def _certificates_in(path: Path, password: str) -> str:
    # Whoever names no such store does not wait for the import.
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs12  # noqa: PLC0415 -- see above

    problem = f"{_STORE}location is no PKCS12 store that {_STORE}password opens"
    if "\0" in password:
        raise ValueError(problem)  # at which the library would panic, and print it
    try:
        store = pkcs12.load_pkcs12(path.read_bytes(), password.encode() or None)
    except OSError as fault:
        raise ValueError(f"{_STORE}location cannot be read: {fault.strerror}") from None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        # A panic of the library is no Exception, and its text may hold the password.
        raise ValueError(problem) from None
    found = [each.certificate.public_bytes(Encoding.PEM).decode() for each in store.additional_certs]
    if not found and store.cert is not None:
        raise ValueError(
            f"{_STORE}location holds a key with its certificate, and none to trust: {_WRITE_OUT}"
        )
    if not found:
        raise ValueError(f"{_STORE}location holds no certificate of an authority")
    return "".join(found)


def check_form(key: str, pem: str) -> None:
    """Check that a key of one's own is one that Java reads, too.

    Raises:
        ValueError: it is not PKCS#8.
    """
    found = _OLD_FORM.search(pem)
    if found:
        raise ValueError(
            f"{key} holds a {found[1]}, and Spark's client reads `BEGIN PRIVATE KEY` alone: convert it once "
            "with `openssl pkcs8 -topk8 -in KEY -out key.pem`, with -nocrypt where it has no password"
        )


def text_of(path: str) -> str:
    """Return what a file holds, nothing where it cannot be read: both clients say that themselves."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def of_the_machine(prefix: str) -> dict[str, str]:
    """Return librdkafka's setting for the authorities that this machine knows, empty where it knows none.

    Left out, the library goes by a place that only some distributions have.
    """
    known = ssl.get_default_verify_paths()
    place = known.cafile or known.capath
    return {} if place is None else {f"{prefix}.ca.location": place}
