"""What any room may tell its caller: errors to act on, and the progress of long work.

Each error says what happened, where, and what to do next.
"""

from typing import Protocol


class Progress(Protocol):
    """Called as long work goes on.

    Work of several steps also says which step it is at (``what``). Work of one step never does, so
    that a function of two arguments will do for it.
    """

    def __call__(self, done: int, total: int, what: str = "", /) -> None:
        """``done`` things of ``total`` are finished."""


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


class StorageFailed(StoreError):
    """SQLite or the disk could not do its work, through no fault of the caller."""


class TextTooLong(ClaraError):
    """A text has more tokens than one chunk holds; nothing was cut.

    Attributes:
        index: position of the text in the list that was given.
        tokens: how many tokens it has; with ``exact`` false, at least this many.
        limit: how many fit (``doc_max_length``).
        exact: whether ``tokens`` is the full count.
    """

    def __init__(self, index: int, tokens: int, limit: int, *, exact: bool = True) -> None:
        self.index, self.tokens, self.limit, self.exact = index, tokens, limit, exact
        count = f"{tokens}" if exact else f"at least {tokens}"
        super().__init__(
            f"text {index} has {count} tokens, but one chunk holds {limit}; "
            "use compress() to split it into chunks, or shorten it"
        )


class PromptTooLong(ClaraError):
    """A question with its memory tokens does not fit the model's window; nothing was cut.

    Attributes:
        tokens: tokens needed, prompt and answer together; with ``exact`` false, at least this many.
        window: tokens the model can see.
        documents: how many documents were given.
        largest_k: how many of them would fit with this question (0: not even one).
        exact: whether ``tokens`` is the full count.
    """

    def __init__(
        self, tokens: int, window: int, documents: int, largest_k: int, *, exact: bool = True
    ) -> None:
        self.tokens, self.window, self.exact = tokens, window, exact
        self.documents, self.largest_k = documents, largest_k
        count = f"{tokens}" if exact else f"at least {tokens}"
        remedy = (
            f"at most {largest_k} fit with this question"
            if largest_k
            else "the question alone is too long; shorten it or lower max_tokens"
        )
        super().__init__(
            f"{documents} documents and the question need {count} tokens with the answer, "
            f"but the model's window is {window}: {remedy}"
        )
