"""Whether bytes are UTF-8, as Python's strict decoder sees it: shortest forms, no surrogates."""

from __future__ import annotations

from streaming.arrays.compilation import Bytes, compiled
from streaming.events.json_strings import byte_at


@compiled
def is_utf8(data: Bytes, at: int, end: int) -> bool:
    """Return whether data[at:end] is UTF-8 (RFC 3629)."""
    while at < end:
        byte = byte_at(data, at)
        at += 1
        if byte < 0x80:
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= byte <= 0xDF:
            more = 1
        elif 0xE0 <= byte <= 0xEF:
            more = 2
            low = 0xA0 if byte == 0xE0 else 0x80
            high = 0x9F if byte == 0xED else 0xBF
        elif 0xF0 <= byte <= 0xF4:
            more = 3
            low = 0x90 if byte == 0xF0 else 0x80
            high = 0x8F if byte == 0xF4 else 0xBF
        else:
            return False
        if at + more > end or not low <= byte_at(data, at) <= high:
            return False
        for place in range(at + 1, at + more):
            if byte_at(data, place) & 0xC0 != 0x80:
                return False
        at += more
    return True
