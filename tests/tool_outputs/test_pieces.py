from __future__ import annotations

import pytest

from clara_mlx.tool_outputs.identifiers import identifiers
from clara_mlx.tool_outputs.pieces import cut_into_pieces


@pytest.mark.parametrize("length", [0, 1, 1 << 17, (1 << 17) + 1, 400_000])
def test_pieces_cover_a_text_once_and_have_what_is_around_them(length: int) -> None:
    text = "".join(chr(97 + i % 23) for i in range(length))
    pieces = list(cut_into_pieces(text, 100))
    assert "".join(piece.text[piece.start : piece.end] for piece in pieces) == text
    for piece in pieces:
        place = piece.offset + piece.start
        around = text[max(0, place - 100) : piece.offset + piece.end + 100]
        assert piece.text == "\n" + around
        assert piece.text[piece.start :].startswith(text[place : place + 100])


@pytest.mark.parametrize("before", range(-3, 40))
def test_no_seam_is_seen(before: int) -> None:
    """What lies on the border of two pieces is found, whole and once."""
    line = "FAILED tests/test_io.py::test_load[a b] - x.JSONDecodeError: https://a.org/b/c.html"
    text = "x" * ((1 << 17) - 2 * before - 1) + "\n" + line + "\n" + "y" * 10
    found = [(one.kind, one.text) for one in identifiers(text)]
    assert found == [
        ("test", "tests/test_io.py::test_load[a b]"),
        ("exception", "x.JSONDecodeError"),
        ("url", "https://a.org/b/c.html"),
    ]
