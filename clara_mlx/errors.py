"""Errors that any room may raise, and the progress of work that takes long.

Each error says what happened, where, and what to do next.
"""

from pathlib import Path
from typing import Protocol


class Progress(Protocol):
    """Called while work that takes long progresses.

    Work in several steps also says which step it is at (``what``). Work in one step never does, so
    a function of two arguments will do.
    """

    def __call__(self, done: int, total: int, what: str = "", /) -> None:
        """``done`` things of ``total`` are finished."""


def reason(error: Exception) -> str:
    """Why something failed; for an OSError, without the number and the path."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


# What an error of a database says before it says where that is.
_UNREACHABLE = "the database can't be reached: "


def for_strangers(text: str, path: Path | str) -> str:
    """A text for those who must not learn where a memory is: its path or URL is left out.

    So is what a database's driver says of the way to it.
    """
    if isinstance(path, str):
        about, unreachable, _ = text.replace(path, "the team's database").partition(_UNREACHABLE)
        return about + unreachable.rstrip(": ")
    return text.replace(str(path), "the memory's file")


class ClaraError(Exception):
    """Base of all clara-mlx errors; the CLI prints it as one line and exits with 1."""


class CheckpointError(ClaraError):
    """A checkpoint or model folder is missing, damaged, or not what it claims to be."""


class StoreError(ClaraError):
    """A memory file can't be opened or is damaged, or it does not hold what was asked for.

    Attributes:
        transient: Whether the same step may succeed later, because the disk was full or another
            process was writing.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        self.transient = transient
        super().__init__(message)


class NotFound(StoreError):
    """There is no memory with this handle, or no longer."""


class NoModel(StoreError):
    """What was asked for needs a model, or another one than the memory was opened with."""


class OtherModel(NoModel):
    """The latents of a file are another model's; the two must never be mixed."""


class Closed(StoreError):
    """The memory was closed before."""


class StorageFailed(StoreError):
    """SQLite or the disk could not do its work, through no fault of the caller."""


class Busy(StorageFailed):
    """Another process has been writing for too long; the same step may succeed later."""


class ReadOnly(StorageFailed):
    """The memory can be read, but not written."""


class TextTooLong(ClaraError):
    """A text has more tokens than one chunk holds; nothing was cut.

    Attributes:
        index: Position of the text in the list that was given.
        tokens: Number of tokens it has; a lower bound unless ``exact``.
        limit: Number of tokens that one chunk holds (``doc_max_length``).
        exact: Whether all tokens were counted.
    """

    def __init__(self, index: int, tokens: int, limit: int, *, exact: bool = True) -> None:
        self.index = index
        self.tokens = tokens
        self.limit = limit
        self.exact = exact
        count = f"{tokens}" if exact else f"at least {tokens}"
        super().__init__(
            f"text {index} has {count} tokens, but one chunk holds {limit}; "
            "use compress() to split it into chunks, or shorten it"
        )


class PromptTooLong(ClaraError):
    """A question with its memory tokens does not fit the model's window; nothing was cut.

    Attributes:
        tokens: Tokens needed by prompt and answer together; a lower bound unless ``exact``.
        window: Tokens that the model can attend to.
        documents: Number of documents that were given.
        largest_k: Number of documents that would fit with this question; 0 if not even one.
        exact: Whether all tokens were counted.
    """

    def __init__(
        self, tokens: int, window: int, documents: int, largest_k: int, *, exact: bool = True
    ) -> None:
        self.tokens = tokens
        self.window = window
        self.documents = documents
        self.largest_k = largest_k
        self.exact = exact
        count = f"{tokens}" if exact else f"at least {tokens}"
        remedy = (
            f"at most {largest_k} fit with this question"
            if largest_k
            else "the question alone is too long; shorten it or lower max_tokens"
        )
        super().__init__(
            f"the question, its answer and the documents ({documents}) need {count} tokens, "
            f"but the model's window is {window}: {remedy}"
        )
