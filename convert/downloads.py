"""What a broken download leaves in a file's place, named with what to do about it."""

from __future__ import annotations

from pathlib import Path

from clara_mlx.errors import CheckpointError
from clara_mlx.model.regular import open_regular

_LFS = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")


def is_named(path: Path) -> bool:
    """Whether there is anything of this name, be it a link that leads nowhere."""
    try:
        return path.is_symlink() or path.exists()
    except (OSError, ValueError):  # a name that no file system allows
        return False


def check_download(path: Path) -> None:
    """Refuse a file that a download did not bring: absent, a broken link, a pointer, a web page.

    Everything else passes, for its reader to judge.

    Raises:
        CheckpointError: It is one of these; the message says what to do.
    """
    try:
        there, link = path.exists(), path.is_symlink()
    except (OSError, ValueError):  # a name that no file system allows
        return
    if not there:
        if link:
            raise CheckpointError(
                f"{path}: a broken link: {path.readlink()} is not there (a download that was "
                "interrupted, or a cache that was cleaned); download it again"
            )
        raise CheckpointError(f"{path}: No such file; download it again, or copy it there")
    try:
        with open_regular(path) as file:
            start = file.read(256)
    except OSError:
        return
    if start.startswith(_LFS):
        raise CheckpointError(
            f"{path}: a Git LFS pointer, not the file itself; run `git lfs pull` in its "
            "repository, or download it with `hf download`"
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        raise CheckpointError(
            f"{path}: a web page, not the file (often one that asks for a login); "
            "run `hf auth login`, and download it again with `hf download`"
        )
