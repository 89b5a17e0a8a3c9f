"""The register of compressors: found by their names, in this package or in any that is installed.

A package brings a compressor with one line of its pyproject.toml:

    [project.entry-points."clara_mlx.compressors"]
    my-name = "my_package.my_module:MyCompressor"

What stands there is called to make the compressor: with a model folder (a path or a hub id) if it
takes an argument, without one if it takes none. A model folder names its compressor in clara.json
(``"compressor": "my-name"``; without that it is CLaRa's), so `load` knows whom to call.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from clara_mlx.compressors.compressor import Compressor
from clara_mlx.errors import CheckpointError, ClaraError

logger = logging.getLogger(__name__)

#: The group of entry points.
GROUP = "clara_mlx.compressors"

#: Our own, as pyproject.toml has them, so that they are found where nothing is installed: in a
#: checkout, or beside an older version's list.
OURS = {
    "clara": "clara_mlx.model.clara:load",
    "lclm": "clara_mlx.compressors.lclm.lclm:load",
    "extractive": "clara_mlx.compressors.extractive:Extractive",
    "bm25": "clara_mlx.compressors.baselines:Bm25Lines",
    "head-tail": "clara_mlx.compressors.baselines:HeadTail",
    "verbatim": "clara_mlx.compressors.baselines:Verbatim",
    "pisco": "clara_mlx.compressors.pisco:load",
    "llmlingua2": "clara_mlx.compressors.llmlingua2.llmlingua2:load",
}


def names() -> list[str]:
    """The names of all compressors: ours, and then those of other packages."""
    return list(OURS) + sorted(name for name in _others() if name not in OURS)


def load(path_or_hub_id: str | Path, *, revision: str | None = None) -> Any:
    """Load a model folder, made by ``clara-mlx convert``, from a path or the hub.

    Returns what the folder is for: `Clara`, or another `Compressor`.

    Raises:
        CheckpointError: The folder can't be found, or is damaged; the message says which file.
        ClaraError: No compressor here is called what the folder says.
    """
    from clara_mlx.model.folder import compressor_of, resolve  # brings in MLX

    folder = resolve(path_or_hub_id, revision)
    name = compressor_of(folder)
    try:
        make = find(name)
    except UnknownCompressor as error:
        raise CheckpointError(f"{folder}: it is a model of another kind: {error}") from error
    began = time.perf_counter()
    made = make(folder)
    logger.debug("%s: loaded as %s in %.1f s", folder, name, time.perf_counter() - began)
    return made


def open_compressor(name: str, model: str | Path | None = None) -> Compressor:
    """The compressor of a name, with its model folder (a path or a hub id) if it needs one.

    A compressor that needs no model leaves out the one that is given, so that a default for the
    others does not stand in its way.

    Raises:
        ClaraError: There is none of this name, it needs a model and none is given, or the folder is
            another compressor's.
    """
    make = find(name)
    needed = _parameters(make)
    if not needed:
        compressor = make()
    elif model is not None:
        from clara_mlx.model.folder import compressor_of, resolve  # brings in MLX

        folder = resolve(model)
        if (theirs := compressor_of(folder)) != name:
            raise ClaraError(f"{folder}: this is a model folder of {theirs}, not of {name}")
        compressor = make(folder)
    elif needed[0].default is inspect.Parameter.empty:
        raise ClaraError(f"{name} needs a model: name its folder with --model FOLDER")
    else:
        compressor = make()
    return compressor


class UnknownCompressor(ClaraError):
    """No compressor has this name; the message lists those there are."""


def find(name: str) -> Callable[..., Any]:
    """What makes the compressor of a name: it is called with a model folder, or with nothing.

    Raises:
        UnknownCompressor: There is none of this name.
        ClaraError: Several packages have one, or the package of the only one can't be imported.
    """
    if name in OURS:
        module, _, attribute = OURS[name].partition(":")
        return getattr(import_module(module), attribute)
    found = _others().get(name, [])
    if not found:
        raise UnknownCompressor(
            f"there is no compressor {name!r}; known here: {', '.join(names())}. "
            "A package that brings one must be installed beside clara-mlx"
        )
    if len(found) > 1:
        theirs = ", ".join(point.dist.name if point.dist else point.value for point in found)
        raise ClaraError(
            f"several packages have a compressor {name!r}: {theirs}; remove all but one"
        )
    try:
        return found[0].load()
    except Exception as error:  # whatever the code of another package raises when it is imported
        raise ClaraError(
            f"the compressor {name!r} ({found[0].value}) can't be loaded: {error}"
        ) from error


def _others() -> dict[str, list[EntryPoint]]:
    """The entry points of other packages, by name."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point.name not in OURS:
            found.setdefault(point.name, []).append(point)
    return found


def _parameters(make: Callable[..., Any]) -> list[inspect.Parameter]:
    """The arguments that can be given to it by position."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one for one in inspect.signature(make).parameters.values() if one.kind in positional]
