"""What an object store answers, as the project's errors: what is waited for, what somebody must set right.

Delta's library tells the cause in its words alone, so they are searched for the codes of S3 and Azure.
"""

from __future__ import annotations

import re

from schemas.errors import ConfigurationError, FlagstreamError, StoreError
from streaming.output.redaction import redacted
from streaming.store.place import Place

_CODE = re.compile(r"<Code>(\w+)</Code>|x-ms-error-code: (\w+)|\(code: ([A-Za-z]\w*)\)")
# Of one of many deletions the library tells a code of S3's, and of Azure's the status alone.
_STATUS = re.compile(r"status code: (\d{3})|\b(401 Unauthorized|403 Forbidden)\b|\(code: (\d{3})\)")
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "FilesystemNotFound", "ResourceNotFound"}
_PASSING = {"ExpiredToken", "TokenRefreshRequired", "RequestTimeTooSkewed", "RequestExpired", "SlowDown"}
_LOGINS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed"}
_REFUSED = {"AccessDenied", *_LOGINS}
# Where nothing else names a login, the libraries ask the machine for its role.
_OF_MACHINES = "169.254.169.254"
# Azure's words. Tokens of identities are renewed by the libraries, a signature by somebody alone.
_TOKEN_OVER = "Lifetime validation failed"
_SIGNATURE_OVER = re.compile(r"Signature not valid in the specified time frame|Signed expiry time \[")
# Of an identity: whoever gives tokens gives it none, or the file is not there that it would prove itself by.
_TOKEN_REQUEST = "Error performing token request"
_NO_TOKEN = {"400", "401", "403"}
_NO_PROOF = "Error reading federated token file"
_DESCRIBED = re.compile(r'"error_description": ?"((?:[^"\\]|\\.)*)')
# Delta's library writes so what its causes have in place of a colon.
_ARROW = re.compile(r"\s*(?:\x1b\[\d*m)?↳(?:\x1b\[\d*m)?\s*")
_AWAY = re.compile(
    r"Generic \w+ error|error sending request|after \d+ retries|timed? ?out|"
    r"connection (?:closed|reset|refused)",
    re.IGNORECASE,
)
_ADMITS_NOT = re.compile(r"does not admit this \((\w+)\)")
_PROLOG = re.compile(r"<\?xml[^>]*>")
_QUERY = re.compile(r"\?[^\s)]+")
# What differs from answer to answer: the same fault has the same words, which are said once.
_VARYING = re.compile(
    r" in \d[\d.]*(?:ns|µs|ms|s)\b|<(RequestId|HostId)>[^<]*</\1>|\s*\bRequestId:[^<\s]+|\s*\bTime:[^<\s]+"
    r"|\s*(?:Trace|Correlation) ID: [\w-]+|\s*Timestamp: [\d-]+ [\d:]+Z"
    r'|,?"(?:trace_id|correlation_id|timestamp)":"[^"]*"'
)
_LONGEST = 300


def fault_of_store(text: str, place: Place) -> FlagstreamError | None:
    """Return the error for what a store has answered, in a library's words; None where it is no answer."""
    text = _ARROW.sub(": ", text)
    code, status = _code(text), _status(text)
    if _NO_PROOF in text or (_TOKEN_REQUEST in text and status in _NO_TOKEN):
        return _no_token(text, place)
    if lacks_bucket(text):
        return ConfigurationError(
            f"there is no such bucket or container ({code}); create it", where=place.uri
        )
    if passes(text):
        return StoreError(f"{place}: {code}: {first_line(text)}")
    if code in _REFUSED or status in {"401", "403"}:
        return not_admitted(text, place)
    return StoreError(f"{place}: {first_line(text)}") if code or status or _AWAY.search(text) else None


def lacks_bucket(text: str) -> bool:
    """Say whether an answer is that there is no such bucket or container."""
    return _code(text) in _NO_BUCKET


def passes(text: str) -> bool:
    """Say whether what an answer refuses, it will admit later."""
    return _code(text) in _PASSING or _TOKEN_OVER in text


def not_admitted(text: str, place: Place) -> ConfigurationError:
    """Return the error for a store that refuses this process."""
    if _SIGNATURE_OVER.search(text):
        return ConfigurationError(
            "the shared access signature has expired, or is not valid yet: set another in "
            "AZURE_STORAGE_SAS_TOKEN and start again",
            where=place.uri,
        )
    code = f" ({code})" if (code := _code(text)) else ""  # the words may be cut before it
    return ConfigurationError(
        f"the store does not admit this{code}: {first_line(text)}; an agent reads, writes, lists and deletes "
        "objects there",
        where=place.uri,
    )


def _no_token(text: str, place: Place) -> ConfigurationError:
    described = _DESCRIBED.search(text)
    said = described[1].partition(r"\r\n")[0] if described else text
    return ConfigurationError(
        f"the identity is given no token: {first_line(said)}; see the variables that name it, and whether "
        "what it proves itself by is still good",
        where=place.uri,
    )


def first_line(text: str) -> str:
    """Return a library's words without queries, which may be signed, and without what it would debug by.

    The time that it took and the request's id are left out, too: a fault that goes on has the same words.
    """
    text = _ARROW.sub(": ", text.partition("Debug source")[0])
    line = " ".join(_VARYING.sub("", _PROLOG.sub("", text)).split())
    asked = "; no login was found, so this machine was asked for its role" if _OF_MACHINES in text else ""
    return redacted(_QUERY.sub("", line))[: _LONGEST - len(asked)] + asked


def unknown_login(fault: str) -> str:
    """Return the code by which a store has said that the login is wrong; empty where it has not."""
    found = _ADMITS_NOT.search(fault)
    return found[1] if found is not None and found[1] in _LOGINS else ""


def _code(text: str) -> str:
    return next((found for match in _CODE.findall(text) for found in match if found), "")


def _status(text: str) -> str:
    return next(("".join(each)[:3] for each in _STATUS.findall(text)), "")
