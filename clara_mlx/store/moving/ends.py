"""The two databases of a move, opened by their names, which are paths of files or URLs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from clara_mlx.errors import StoreError
from clara_mlx.store.opening import is_url, open_store
from clara_mlx.store.originals import Originals
from clara_mlx.store.store import Store


@contextmanager
def open_ends(source: str, target: str, *, writes: bool) -> Iterator[tuple[Originals, Originals]]:
    """Open both for a block.

    Args:
        source: The name of an existing memory.
        target: The name of a memory, which is made if it is new.
        writes: Whether it may be made; if not, an empty one in a temporary folder stands for it.

    Raises:
        StoreError: There is no source, or one of them can't be opened.
    """
    source, target = (name if is_url(name) else str(Path(name).expanduser())
                      for name in (source, target))  # fmt: skip
    if not exists(source):
        raise StoreError(f"{source}: there is no memory there to be moved")
    with ExitStack() as stack:
        ours = stack.enter_context(closing(open_store(source)))
        if writes or exists(target):
            theirs = stack.enter_context(closing(open_store(target)))
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            theirs = stack.enter_context(closing(Store(Path(folder) / "empty.db")))
        yield ours, theirs


def exists(name: str) -> bool:
    """Whether there is a memory of this name; none is made.

    Raises:
        StoreError: The database of a URL can't be reached.
    """
    if not is_url(name):
        return Path(name).exists()
    try:
        from clara_mlx.store.postgres.database import is_made
    except ImportError:
        return True  # opening it says what to install
    return is_made(name)
