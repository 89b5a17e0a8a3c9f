"""Pages from templates: everything is escaped, and a browser runs nothing but our own script."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response

from clara_mlx.serve.inspector.visible import plain, visible
from clara_mlx.version import __version__

FOLDER = Path(__file__).parent

#: Sent with every page. Nothing comes from elsewhere, nothing inline runs, and nobody frames it.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": visible,
        "plain": plain,
        "size": size,
        "count": count,
        "when": when,
    }
    environment.globals["version"] = __version__
    return environment


def page_response(
    name: str, values: Mapping[str, Any], *, status: int = 200, known: str | None = None
) -> Response:
    """A page.

    Args:
        name: Of the template.
        values: What it shows.
        status: Of the HTTP response.
        known: The ``If-None-Match`` of the request: what the browser has already is not sent again.
    """
    template = _environment().get_template(f"{name}.html.jinja")
    content = template.render(values).encode("utf-8", "replace")
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = HEADERS | {"etag": tag}
    if known == tag and status == 200:
        return Response(None, 304, headers)
    return Response(content, status, headers, "text/html")


def size(number: float) -> str:
    """Bytes in a unit that people read."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def count(number: float) -> str:
    """A whole number, with commas."""
    return f"{number:,.0f}"


def when(seconds: float) -> Markup:
    """A time of this machine: the hour today, and the day before that."""
    at = datetime.fromtimestamp(seconds)
    now = datetime.now()
    short = "%H:%M:%S" if at.date() == now.date() else "%-d %b %H:%M"
    if at.year != now.year:
        short = "%-d %b %Y"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.astimezone().isoformat(timespec="seconds"),
        at.strftime("%A, %-d %B %Y, %H:%M:%S"),
        at.strftime(short),
    )
