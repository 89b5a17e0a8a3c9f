"""What forms and addresses say: fields of a query, few and small."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from starlette.datastructures import MultiDict
from starlette.requests import Request

from clara_mlx.serve.errors import ApiError

# The most fields of a form: the handles of some pages of a list.
_MOST_FIELDS = 2_000

# The most bytes of a form.
_MOST_BYTES = 1 << 18

# Seconds that a form may take to arrive.
_SECONDS = 15.0


def whole_number(text: str) -> int | None:
    """The number that a field gives; None if it gives none, or one that no page can need."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


async def read_form(request: Request) -> MultiDict:
    """The fields that a form has sent.

    Raises:
        ApiError: It is no form, too large, or took too long.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise ApiError(415, "this page takes what its own form sends")
    content = b""
    try:
        async with asyncio.timeout(_SECONDS):
            async for piece in request.stream():
                content += piece
                if len(content) > _MOST_BYTES:
                    raise ApiError(413, f"a form has at most {_MOST_BYTES:,} bytes")
        pairs = parse_qsl(content.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except TimeoutError:
        raise ApiError(408, f"the form took longer than {_SECONDS:g} seconds") from None
    except ValueError:
        raise ApiError(400, f"this is no form of at most {_MOST_FIELDS:,} fields") from None
    return MultiDict(pairs)
