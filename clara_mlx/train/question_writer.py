"""A language model that writes questions about tool outputs, behind an OpenAI-compatible endpoint.

What it answers is not believed: a pair is kept only if its answer stands verbatim in the text.
"""

from __future__ import annotations

import json
import re
import time
from itertools import islice
from typing import Any

from clara_mlx.errors import ClaraError
from clara_mlx.evaluate.probes.probe import ANSWER_CHARACTERS

_QUESTION_CHARACTERS = 200
_BRACKETS = 20  # that could open the list in a reply
_RETRIED = {408, 409, 429, 500, 502, 503, 504}
_INSTRUCTIONS = (
    "You read the output of a software tool and write questions whose exact answers stand in it: "
    "file paths, line numbers, names, values, counts, error messages. Copy each answer character "
    "by character from the output; at most 60 characters, on one line. Ask only what has exactly "
    'one answer. Reply with a JSON list of objects {"question": ..., "answer": ...} only.'
)


class QuestionWriterError(ClaraError):
    """The endpoint can't be reached, or refuses."""


class QuestionWriter:
    """Asks an endpoint for questions about texts.

    Args:
        url: the API's base, such as ``http://127.0.0.1:8080/v1``.
        model: the model's name there.
        api_key: sent as a bearer token if given.
        questions: how many to ask for.
        timeout: seconds for one attempt.
        retries: attempts after the first, on connection failures, timeouts and busy servers.
        pause: seconds before the first retry; doubled each time. Retry-After can make it longer.

    Use it in a ``with`` block, or `close` it.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        questions: int = 4,
        timeout: float = 60.0,
        retries: int = 3,
        pause: float = 1.0,
    ) -> None:
        import httpx2  # only those who ask a model need it

        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model, self._questions = model, questions
        self._retries, self._pause = retries, pause
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx2.Client(timeout=timeout, headers=headers)
        self._unreachable = httpx2.TransportError
        self.kept = self.refused = 0
        """How many pairs were kept, and how many were not verbatim or not well formed."""

    def __enter__(self) -> QuestionWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def write(self, text: str) -> list[tuple[str, str]]:
        """Questions about ``text`` with their answers; none if the model wrote nothing usable.

        Raises:
            QuestionWriterError: the endpoint failed after all attempts, or refused the request.
        """
        reply = self._ask(
            {
                "model": self._model,
                "temperature": 0,
                "messages": [
                    {"role": "system", "content": _INSTRUCTIONS},
                    {"role": "user", "content": f"{self._questions} questions about:\n\n{text}"},
                ],
            }
        )
        pairs: dict[str, str] = {}
        for raw in _listed(reply):
            pair = _verbatim(raw, text)
            if pair is None or pair[0] in pairs:
                self.refused += 1
            else:
                self.kept += 1
                pairs[pair[0]] = pair[1]
        return list(pairs.items())

    def _ask(self, request: dict[str, Any]) -> str:
        for attempt in range(self._retries + 1):
            wait = self._pause * 2**attempt
            try:
                response = self._client.post(self._url, json=request)
            except self._unreachable as error:
                failure = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == 200:
                    return _said(response.content, self._url)
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


def _said(body: bytes, url: str) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise QuestionWriterError(f"{url}: the reply is not a chat completion: {error}") from error
    return content if isinstance(content, str) else ""


def _listed(reply: str) -> list[Any]:
    """The JSON list in a reply, which models like to fence or introduce."""
    for bracket in islice(re.finditer(r"\[", reply), _BRACKETS):
        try:
            found, _ = json.JSONDecoder().raw_decode(reply, bracket.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list) and all(isinstance(one, dict) for one in found):
            return found
    return []


def _verbatim(raw: dict[str, Any], text: str) -> tuple[str, str] | None:
    question, answer = raw.get("question"), raw.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(question, str) or not isinstance(answer, str):
        return None
    question, answer = " ".join(question.split()), answer.strip()
    fits = 0 < len(question) <= _QUESTION_CHARACTERS and 0 < len(answer) <= ANSWER_CHARACTERS
    # "4" stands in "42" too; an answer is a whole word or more.
    whole = re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text)
    usable = fits and whole and "\n" not in answer and "[masked:" not in answer
    return (question, answer) if usable else None
