"""The kinds of checkpoints: each is recognised by its layout, and converted by its own module."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from clara_mlx.compressors.lclm.folder import NAME as LCLM
from clara_mlx.compressors.lclm.folder import LclmFolder
from clara_mlx.compressors.llmlingua2.folder import NAME as LLMLINGUA2
from clara_mlx.compressors.llmlingua2.folder import EncoderFolder
from clara_mlx.convert.conversion import Conversion, convert
from clara_mlx.convert.lclm import convert_lclm
from clara_mlx.convert.lclm_source import LclmSource, is_lclm
from clara_mlx.convert.lclm_verification import verify_lclm
from clara_mlx.convert.source import Source
from clara_mlx.convert.token_classifier import TokenClassifierSource, is_token_classifier
from clara_mlx.convert.token_classifier_conversion import (
    convert_token_classifier,
    verify_token_classifier,
)
from clara_mlx.convert.verification import Verification, verify
from clara_mlx.errors import CheckpointError, Progress
from clara_mlx.model.folder import ModelFolder, compressor_of

#: A checkpoint of any kind, found and checked.
AnySource: TypeAlias = Source | LclmSource | TokenClassifierSource


def open_checkpoint(
    checkpoint: str | Path,
    *,
    base: str | Path | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
) -> AnySource:
    """Find a checkpoint, see of which kind it is, and check it; see `Source.open`.

    Raises:
        CheckpointError: Something is missing, damaged or does not fit.
    """
    if is_lclm(checkpoint, subfolder, revision):
        if base is not None:
            raise CheckpointError(
                f"{checkpoint}: an LCLM checkpoint, which is whole without a base; leave --base out"
            )
        return LclmSource.open(checkpoint, subfolder=subfolder, revision=revision)
    if is_token_classifier(checkpoint, subfolder, revision):
        if base is not None:
            raise CheckpointError(
                f"{checkpoint}: an encoder of LLMLingua-2, which is whole without a base; leave "
                "--base out"
            )
        return TokenClassifierSource.open(checkpoint, subfolder=subfolder, revision=revision)
    return Source.open(checkpoint, base=base, subfolder=subfolder, revision=revision)


def open_recorded(
    folder: str | Path, *, checkpoint: str | None = None, base: str | None = None
) -> AnySource:
    """Open what a model folder was made from, or the places given instead.

    Raises:
        CheckpointError: It is not there any more, or is another one.
    """
    compressor = compressor_of(Path(folder))
    if compressor == LCLM:
        return LclmSource.open_recorded(LclmFolder.open(folder), checkpoint=checkpoint)
    if compressor == LLMLINGUA2:
        return TokenClassifierSource.open_recorded(
            EncoderFolder.open(folder), checkpoint=checkpoint
        )
    return Source.open_recorded(ModelFolder.open(folder), checkpoint=checkpoint, base=base)


def verify_checkpoint(
    folder: str | Path, checkpoint: AnySource, *, progress: Progress | None = None
) -> Verification:
    """Compare a model folder with the checkpoint that it was made from; see `verify`."""
    if isinstance(checkpoint, LclmSource):
        return verify_lclm(folder, checkpoint, progress=progress)
    if isinstance(checkpoint, TokenClassifierSource):
        return verify_token_classifier(folder, checkpoint, progress=progress)
    return verify(folder, checkpoint, progress=progress)


def convert_checkpoint(checkpoint: AnySource, to: str | Path, **options: Any) -> Conversion:
    """Write the model folder of a checkpoint; the options are those of `conversion.convert`.

    Raises:
        CheckpointError: It can't be written, or the finished folder does not work.
    """
    if isinstance(checkpoint, LclmSource):
        return convert_lclm(checkpoint, to, **options)
    if isinstance(checkpoint, TokenClassifierSource):
        return convert_token_classifier(checkpoint, to, **options)
    return convert(checkpoint, to, **options)
