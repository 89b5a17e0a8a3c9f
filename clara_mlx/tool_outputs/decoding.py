"""Raw bytes as text: UTF-8, and the UTF-16 that programs for Windows write.

Spans of remembered bytes count the characters that `decode` makes of them, in files that are old
by now: for bytes that it decodes today, it must give the same text for ever.
"""

from __future__ import annotations

# Bytes at the beginning that are looked at.
_LOOKED_AT = 4_096

# Of them, the least that are UTF-16 without a mark: fewer say too little.
_LEAST = 8

# The share of characters of Latin scripts that makes bytes UTF-16 without a mark: their high bytes
# are zero, their low bytes never are.
_LATIN = 0.7


def decode(data: bytes) -> str:
    """The text of raw bytes, in the encoding that `encoding_of` tells.

    Bytes that are no UTF-8 become lone surrogates, one each; what is no UTF-16 becomes U+FFFD. A
    byte order mark stays, as U+FEFF.
    """
    encoding = encoding_of(data)
    return data.decode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")


def encoding_of(data: bytes) -> str:
    """``utf-16-le`` or ``utf-16-be``, by the mark or clearly without one; else ``utf-8``."""
    if data[:2] == b"\xff\xfe" and data[2:4] != b"\0\0":
        return "utf-16-le"
    if data[:2] == b"\xfe\xff":
        return "utf-16-be"
    look = data[: min(_LOOKED_AT, len(data) - len(data) % 2)]
    if len(look) >= _LEAST and b"\0" in look:
        even, odd = look[::2], look[1::2]
        if odd.count(0) >= _LATIN * len(odd) and not even.count(0):
            return "utf-16-le"
        if even.count(0) >= _LATIN * len(even) and not odd.count(0):
            return "utf-16-be"
    return "utf-8"
