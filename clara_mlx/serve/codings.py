"""Bodies that clients compress: decoded, up to the size that a body may have.

A thousandth of what a text says can be enough to write it compressed, so it is decoded piece by
piece and given up at the limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator

import zstandard

from clara_mlx.serve.errors import ApiError

# Bytes that are decoded at a time.
_PIECE = 1 << 20

# zlib's names for the forms of a deflated body: gzip's; zlib's own, which the standard means; and
# none around it, which some clients send.
_GZIP = 31
_ZLIB = 15
_RAW = -15

# Bytes that a zstd body may refer back to: what RFC 9659 asks of clients.
_ZSTD_WINDOW = 8 << 20


def decode(content: bytes, coding: str, limit: int) -> bytes:
    """A body without its coding.

    Args:
        content: The body as it came.
        coding: What ``Content-Encoding`` says of it.
        limit: The bytes of the longest body.

    Raises:
        ApiError: There is no such coding here, the body is not in it, or it is longer than that.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return content
    if name not in _DECODERS:
        known = ", ".join(sorted(_DECODERS))
        raise ApiError(
            415,
            f"Content-Encoding {coding[:60]!r} is not read here; send one of {known}, or none",
            code="unsupported_encoding",
        )
    decoded = bytearray()
    try:
        for piece in _DECODERS[name](content):
            decoded += piece
            if len(decoded) > limit:
                message = f"the request is larger than {limit} bytes when it is decoded"
                raise ApiError(413, message, code="too_large")
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        message = f"the body is not what Content-Encoding says, {name}: {error}"
        raise ApiError(400, message, code="bad_encoding") from None
    return bytes(decoded)


def _gzip(content: bytes) -> Iterator[bytes]:
    while content:  # a body may have several parts
        content = yield from _inflate(content, _GZIP)


def _deflate(content: bytes) -> Iterator[bytes]:
    has_header = content[:1] and (content[0] & 15) == 8 and int.from_bytes(content[:2]) % 31 == 0
    yield from _inflate(content, _ZLIB if has_header else _RAW)


def _inflate(content: bytes, form: int) -> Generator[bytes, None, bytes]:
    """The pieces of what is deflated; returns what follows it."""
    inflating = zlib.decompressobj(form)
    while not inflating.eof:
        piece = inflating.decompress(content, _PIECE)
        content = inflating.unconsumed_tail
        if not piece and not content and not inflating.eof:
            raise EOFError("it is incomplete")
        yield piece
    return inflating.unused_data


def _zstd(content: bytes) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    with decompressor.stream_reader(content, read_across_frames=True) as reader:
        while piece := reader.read(_PIECE):
            yield piece


_DECODERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "deflate": _deflate,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "zstd": _zstd,
}
