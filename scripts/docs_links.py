"""A hook of MkDocs: links from a page to files outside docs/ lead to them in the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

# A link's target that leaves docs/, up to its end; targets are short.
_OUTSIDE = re.compile(r"\]\(\.\./([^()\s]{1,200})\)")


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """The page's text as MkDocs should read it.

    Raises:
        FileNotFoundError: A link leads to a file that is not in the repository.
    """

    def to_repository(link: re.Match[str]) -> str:
        path, sign, place = link[1].partition("#")
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"a page links to {path}, which is not in the repository")
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"]({config['repo_url'].rstrip('/')}/{kind}/main/{path}{sign}{place})"

    return _OUTSIDE.sub(to_repository, markdown)
