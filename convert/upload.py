"""Publishing a model folder on the hub, in one commit, through huggingface_hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from clara_mlx.convert import licences
from clara_mlx.convert.manifest import refuse_link_out
from clara_mlx.convert.model_card import shown_name, write_card
from clara_mlx.errors import ClaraError, reason
from clara_mlx.model.folder import LAYOUT, ModelFolder
from clara_mlx.model.regular import MOST_CONFIG, read_regular

_CARD = "README.md"
# Files that the hub or its users keep in a repository beside the model's own.
_THEIRS = (".gitattributes", _CARD)

# The modules of huggingface_hub's HTTP client, which errors of the network come from.
_HTTP_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2")

_ANSWERS = {
    401: "the hub does not know you; log in with `hf auth login`, or set HF_TOKEN to a token that "
    "may write",
    403: "your token may not write there; use one that may, or a name of your own",
    404: "the hub has no such owner, or you may not see the repository",
    409: "the repository changed meanwhile; run the same command again",
}


class UploadError(ClaraError):
    """A model folder was not published: its licence, its name, the hub or the network forbid it."""


def resolve_licences(
    stated: Mapping[str, str | None], folder: Path, given: str | None = None
) -> dict[str, str | None]:
    """The licence of each part, as its card states it, else as its text or the user says.

    Args:
        stated: What the cards state, by part.
        folder: The checkpoint or model folder, which may hold the text of the licence.
        given: The licence of parts whose own is not found.
    """
    found = dict(stated)
    if found.get("checkpoint") is None and (folder / "LICENSE").is_file():
        text = read_regular(folder / "LICENSE", MOST_CONFIG).decode("utf-8", "replace")
        found["checkpoint"] = licences.recognise(text)
    return {part: found.get(part) or given for part in ("checkpoint", "base")}


def check_may_upload(
    repository: str, licence: Mapping[str, str | None], *, agreed: bool = False
) -> None:
    """Refuse what can be refused before anything is computed or sent.

    Args:
        repository: The hub id that the folder gets.
        licence: The licence of each part, as `resolve_licences` gives it.
        agreed: The user says that the licences allow it.

    Raises:
        UploadError: The repository's name has no owner, or a licence stands in the way.
    """
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name:
        raise UploadError(
            f"{repository!r}: name the repository as OWNER/NAME, e.g. "
            "mlx-community/CLaRa-7B-E2E-16x-8bit"
        )
    obstacle = licences.find_obstacle(licence)
    if obstacle and not agreed:
        raise UploadError(
            f"{repository}: not uploaded: {obstacle}; if you may publish it, add --yes-licence "
            "(and --licence NAME if none is stated)"
        )


def upload(
    folder: ModelFolder,
    repository: str,
    *,
    licence: Mapping[str, str | None],
    agreed: bool = False,
    verified: Sequence[str] = (),
    private: bool = False,
) -> str:
    """Publish a model folder with a card, and return its address.

    All files appear in one commit, so the repository is complete or as before. The hub keeps what
    an interrupted upload sent, and huggingface_hub does not send it again. Only files that
    ``clara.json`` lists are sent; places on this disk are named there by their last part only.

    Args:
        folder: The model folder.
        repository: The hub id, ``OWNER/NAME``; it is made if it does not exist.
        licence: The licence of each part, as `resolve_licences` gives it.
        agreed: The user says that the licences allow it.
        verified: Lines about the comparison with the source, for the card.
        private: Make the repository private, if it is made.

    Raises:
        CheckpointError: A file lies outside the folder.
        UploadError: See `check_may_upload`; or the repository holds something else, or the hub
            refuses, or can't be reached.
    """
    check_may_upload(repository, licence, agreed=agreed)
    card = write_card(folder, repository, licence=licence, verified=verified)
    files = {name: folder.path / name for name in folder.description["files"]}
    for file in files.values():
        refuse_link_out(file, folder.path)
    contents: dict[str, Path | bytes] = {
        **files,
        LAYOUT.clara: _description_for_strangers(folder),
        _CARD: card.encode(),
    }
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        present = set(api.list_repo_files(repository)) - set(_THEIRS)
        if present and LAYOUT.clara not in present:
            raise UploadError(
                f"{repository}: holds something else than a CLaRa model; choose another name"
            )
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationAdd(name, content) for name, content in contents.items()),
                # Another split of the weights would be loaded together with this one.
                *(CommitOperationDelete(name) for name in sorted(present - set(contents))),
            ],
            commit_message=f"Upload with clara-mlx {folder.description['clara_mlx']}",
        )
    except HFValidationError as error:
        raise UploadError(f"{repository}: not a name that the hub allows: {error}") from error
    except UploadError:
        raise
    except Exception as error:  # of huggingface_hub, and of whichever HTTP client it uses
        raise UploadError(f"{repository}: not uploaded: {_explain(error)}") from error
    return str(commit.repo_url)


def _description_for_strangers(folder: ModelFolder) -> bytes:
    """``clara.json`` without the places on this disk."""
    source: dict[str, Any] = folder.description["source"]
    places = {part: shown_name(source[part]) for part in ("checkpoint", "base")}
    description = folder.description | {"source": source | places}
    return json.dumps(description, indent=2, ensure_ascii=False).encode()


def _explain(error: Exception) -> str:
    """One line on why the hub or the network failed, and what to do."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            status = cause.response.status_code
            said = (cause.server_message or str(cause)).strip().splitlines()[:1]
            return f"{_ANSWERS.get(status, 'the hub refused it')} (HTTP {status}: {''.join(said)})"
    if any(type(cause).__module__.partition(".")[0] in _HTTP_CLIENTS for cause in causes):
        return (
            f"the connection broke ({' '.join(str(causes[-1]).split())}); run the same command "
            "again: what arrived is not sent twice"
        )
    return " ".join(reason(error).split())
