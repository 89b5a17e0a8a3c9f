"""A language model that writes questions about tool outputs, behind an OpenAI-compatible endpoint.

Its replies are not trusted: a pair is kept only if the text contains the answer verbatim.
"""

from __future__ import annotations

import json
import re
import time
from itertools import islice
from typing import Any

from clara_mlx.errors import ClaraError
from clara_mlx.evaluate.probes.probe import ANSWER_CHARACTERS

_QUESTIONS = 4  # that are asked for about a text
_QUESTION_CHARACTERS = 200  # of the longest question that is kept
_BRACKETS = 20  # of a reply, at which its list is looked for
_RETRIED = {408, 409, 429, 500, 502, 503, 504}  # HTTP statuses of servers that are busy
_INSTRUCTIONS = (
    "You read the output of a software tool and write questions whose exact answers are in it: "
    "file paths, line numbers, names, values, counts, error messages. Copy each answer character "
    "by character from the output; at most 60 characters, on one line. Ask only what has exactly "
    'one answer. Reply with a JSON list of objects {"question": ..., "answer": ...} only.'
)


class QuestionWriterError(ClaraError):
    """The endpoint can't be reached, or refuses the request."""


class QuestionWriter:
    """Asks an endpoint for questions about texts.

    Args:
        url: The API's base, such as ``http://127.0.0.1:8080/v1``.
        model: The model's name there.
        api_key: The bearer token to send; None sends none.
        timeout: Seconds that one attempt may take.
        retries: Attempts after the first, if the connection fails, times out, or the server is
            busy.
        pause: Seconds before the first retry, doubled each time; Retry-After can make it longer.

    Attributes:
        kept: Number of pairs that were kept.
        refused: Number of pairs that were not well formed, or not verbatim.

    Use it in a ``with`` block, or call `close`.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        pause: float = 1.0,
    ) -> None:
        import httpx2  # from the extra `train`, needed only here

        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model = model
        self._retries = retries
        self._pause = pause
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx2.Client(timeout=timeout, headers=headers)
        self._unreachable = httpx2.TransportError
        self.kept = 0
        self.refused = 0

    def __enter__(self) -> QuestionWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def write(self, text: str) -> list[tuple[str, str]]:
        """Ask for questions about ``text``; an unusable reply gives no pairs.

        Returns:
            Pairs of question and answer.

        Raises:
            QuestionWriterError: The endpoint failed in all attempts, or refused the request.
        """
        reply = self._ask(
            {
                "model": self._model,
                "temperature": 0,
                "messages": [
                    {"role": "system", "content": _INSTRUCTIONS},
                    {"role": "user", "content": f"{_QUESTIONS} questions about:\n\n{text}"},
                ],
            }
        )
        pairs: dict[str, str] = {}
        for raw in _find_list(reply):
            pair = _verbatim_pair(raw, text)
            if pair is None or pair[0] in pairs:
                self.refused += 1
            else:
                self.kept += 1
                pairs[pair[0]] = pair[1]
        return list(pairs.items())

    def _ask(self, request: dict[str, Any]) -> str:
        """Send a request, again and again while the server is busy; return the reply's text."""
        for attempt in range(self._retries + 1):
            wait = self._pause * 2**attempt
            try:
                response = self._client.post(self._url, json=request)
            except self._unreachable as error:
                failure = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == 200:
                    return _content(response.content, self._url)
                failure = f"HTTP {response.status_code}: {response.text[:200]}"
                if response.status_code not in _RETRIED:
                    raise QuestionWriterError(f"{self._url}: {failure}")
                stated = response.headers.get("retry-after", "")
                wait = max(wait, float(stated)) if stated.isdecimal() else wait
            if attempt < self._retries:
                time.sleep(wait)
        raise QuestionWriterError(
            f"{self._url}: {failure} (after {self._retries + 1} attempts); "
            "check that the server runs and is not overloaded"
        )


def _content(body: bytes, url: str) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise QuestionWriterError(f"{url}: the reply is not a chat completion: {error}") from error
    return content if isinstance(content, str) else ""


def _find_list(reply: str) -> list[Any]:
    """The JSON list in a reply; models often write an introduction or a fence around it."""
    for bracket in islice(re.finditer(r"\[", reply), _BRACKETS):
        try:
            found, _ = json.JSONDecoder().raw_decode(reply, bracket.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list) and all(isinstance(one, dict) for one in found):
            return found
    return []


def _verbatim_pair(raw: dict[str, Any], text: str) -> tuple[str, str] | None:
    """Question and answer, if both are well formed and the text contains the answer."""
    question = raw.get("question")
    answer = raw.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(question, str) or not isinstance(answer, str):
        return None
    question = " ".join(question.split())
    answer = answer.strip()
    fits = 0 < len(question) <= _QUESTION_CHARACTERS and 0 < len(answer) <= ANSWER_CHARACTERS
    # "42" contains "4", so the answer must be made of whole words.
    whole = re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text)
    usable = fits and whole and "\n" not in answer and "[masked:" not in answer
    return (question, answer) if usable else None
