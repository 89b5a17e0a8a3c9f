"""How the plots of all reports are drawn: as SVG texts that take the colours of their page."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_P = ParamSpec("_P")

#: The colour of words and axes; a page draws with its own, dark or light.
INK = "#1d1c1a"

#: The colours of lines and bars. page.html.jinja has lighter ones for a dark page.
BLUE = "#0b6e99"
ORANGE = "#c2701c"
GREEN = "#5f8a1f"
PURPLE = "#a05195"
GREY = "#77756f"
SAND = "#c4bfb0"

_NAMES = {
    "blue": BLUE,
    "orange": ORANGE,
    "green": GREEN,
    "purple": PURPLE,
    "grey": GREY,
    "sand": SAND,
}

_LEAST = 0.7  # of its width: a smaller plot would be hard to read, so that it is scrolled instead

_STYLE = {
    "svg.hashsalt": "clara-mlx",  # equal figures give equal texts
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a dollar in a tool's name is a dollar
    "figure.facecolor": "none",  # the page's own colour shows
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        (
            *("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"),
            *("xtick.color", "ytick.color", "grid.color"),
        ),
        INK,
    ),
}


def as_svg(draw: Callable[_P, Figure]) -> Callable[_P, str]:
    """Make a function that draws a figure return it as SVG text for a page.

    In it, `INK` is the colour of the page's text, and the other colours are the page's variables.
    """

    @wraps(draw)
    def draw_svg(*args: _P.args, **kwargs: _P.kwargs) -> str:
        import matplotlib

        text = io.StringIO()
        with matplotlib.rc_context(_STYLE):
            figure = draw(*args, **kwargs)
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        svg = text.getvalue()
        svg = svg[svg.index("<svg") :].replace(f": {INK}", ": currentColor")
        least = f"min-width: {_LEAST * figure.get_figwidth():.2f}in"
        svg = svg.replace("<svg ", f'<svg style="{least}" ', 1)
        for name, colour in _NAMES.items():
            svg = svg.replace(f": {colour}", f": var(--{name}, {colour})")
        return svg

    return draw_svg


def alone(svg: str) -> str:
    """What `as_svg` made as a file of its own, on white paper and in any width."""
    _, _, rest = svg.split('"', 2)
    return f'<svg style="color: {INK}; background: #ffffff"{rest}'


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
