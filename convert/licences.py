"""Licences of models: which let everyone publish a converted model, and what the others say."""

from __future__ import annotations

from collections.abc import Mapping

#: Licences, by the hub's names, under which a converted model may be published as it is.
OPEN = (
    *("apache-2.0", "mit", "isc", "unlicense", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-3.0"),
    *("bsd", "bsd-2-clause", "bsd-3-clause", "cc-by-sa-3.0", "zlib", "mpl-2.0"),
)

_RESEARCH = (
    "for research only, and not for any product or service; what is made from it stays under the "
    "same terms, and copies must carry them; Apple can revoke it"
)
# What licences that are not open say, by the hub's name.
_TERMS = {
    "apple-amlr": f"Apple's licence for research models: {_RESEARCH}",
    "llama2": "Meta's licence: copies carry it, and some uses and large services are excluded",
    "llama3": "Meta's licence: the name starts with Llama 3, and some uses are excluded",
    "gemma": "Google's terms: copies carry them, and some uses are excluded",
    "openrail": "some uses are excluded, and whoever gets a copy must be bound to that",
    "mrl": "Mistral's research licence: not for commercial use",
}
_NOT_COMMERCIAL = "Creative Commons: not for commercial use, and its makers must be named"
_NOT_CHANGED = "Creative Commons: changed versions, as a converted model may be, can't be shared"

# How the texts of licences begin, in lower case.
_TITLES = {
    "apple machine learning research model": "apple-amlr",
    "apache license": "apache-2.0",
    "mit license": "mit",
    "attribution-noncommercial-noderivatives 4.0": "cc-by-nc-nd-4.0",
    "attribution-noncommercial-sharealike 4.0": "cc-by-nc-sa-4.0",
    "attribution-noncommercial 4.0": "cc-by-nc-4.0",
    "attribution-sharealike 4.0": "cc-by-sa-4.0",
    "attribution 4.0": "cc-by-4.0",
    "cc0 1.0 universal": "cc0-1.0",
}
_TITLE_LENGTH = 400  # characters at the start of a licence among which its title is


def recognise(text: str) -> str | None:
    """The hub's name for the licence that a text is, by its title; None if it is unknown."""
    start = " ".join(text[:_TITLE_LENGTH].lower().split())
    return next((name for title, name in _TITLES.items() if title in start), None)


def stricter(stated: object, text: str) -> str | None:
    """The licence of a model card, whose head states one, if any, and whose text may name another.

    The cards of naver's PISCO state cc-by-4.0 in their head, and say CC BY-NC 4.0 in their text.
    """
    named = str(stated) if stated else None
    if "cc-by-nc-4.0" in normalise(text) and (named is None or normalise(named) == "cc-by-4.0"):
        return "cc-by-nc-4.0"
    return named


def normalise(name: str) -> str:
    """A licence's name as the hub writes it: ``CC BY-NC 4.0`` is ``cc-by-nc-4.0``."""
    return "-".join(name.lower().replace("_", "-").split())


def terms(name: str) -> str | None:
    """What a licence asks of those who publish; None if it is open, or unknown."""
    name = normalise(name)
    if name in _TERMS:
        return _TERMS[name]
    parts = name.split("-")
    if parts[0] == "cc" and "nd" in parts:
        return _NOT_CHANGED
    if parts[0] == "cc" and "nc" in parts:
        return _NOT_COMMERCIAL
    return None


def find_obstacle(licences: Mapping[str, str | None]) -> str | None:
    """Why a model made from parts under these licences may not be published; None if it may.

    Args:
        licences: The name of each part's licence, None if it is not stated.
    """
    for part, name in licences.items():
        if name is None:
            return f"the licence of the {part} is not stated"
        if normalise(name) in OPEN:
            continue
        said = terms(name)
        if said is None:
            return f"the {part} is under {name}, whose terms are not known here"
        return f"the {part} is under {name} ({said})"
    return None
