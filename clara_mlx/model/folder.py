"""The model folder on disk: the one module that knows its layout.

A model folder is also an mlx-lm model: the base in its root, adapters in mlx-lm's adapter format
under ``adapters/<name>/``. What is ours is in ``clara.json`` and ``memory_tokens.safetensors``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from clara_mlx.errors import CheckpointError, reason
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.regular import MOST_CONFIG, check_folder, check_regular, read_regular
from clara_mlx.model.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Layout:
    """File names inside a model folder."""

    format: int = 2  # the newest of clara.json; a reader refuses a newer one
    clara: str = "clara.json"
    config: str = "config.json"
    weights: str = "model-{:05d}-of-{:05d}.safetensors"
    index: str = "model.safetensors.index.json"
    memory_tokens: str = "memory_tokens.safetensors"  # exact rows of the added tokens
    tokenizer: str = "tokenizer.json"
    adapter: str = "adapters/{}/adapters.safetensors"
    adapter_config: str = "adapters/{}/adapter_config.json"


LAYOUT = Layout()

# What a hub download of a model folder needs.
_HUB_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "LICENSE*"]

#: The dtypes that a folder's weights can have, by name.
DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}

#: The compressor of a model folder that names none.
CLARA = "clara"

#: Names of the adapters a model folder can hold.
ADAPTERS = ("encoder", "decoder", "query_reasoner")


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose description has been read and checked. Made by `open`."""

    path: Path
    description: dict[str, Any]  # what clara.json says
    config: ClaraConfig
    adapters: tuple[str, ...]  # names of those in it
    query_adapter: str  # the one that encodes questions
    fingerprint: str  # of checkpoint, quantisation and dtype
    dtype: mx.Dtype  # of its weights, or the one that they had before they were quantised
    is_quantised: bool  # of the base
    base_config: dict[str, Any]  # the base's config.json, as mlx-lm reads it

    @classmethod
    def open(cls, path: str | Path) -> ModelFolder:
        """Read and check a folder's description; its weights are not loaded.

        Raises:
            CheckpointError: There is no such folder, it is not a model folder or of a newer
                format, or a file is missing or has another size than ``clara.json`` recorded.
        """
        path = Path(path)
        description = describe(path)
        written = description.get("format")
        if type(written) is not int or written > LAYOUT.format:
            if (theirs := compressor_of(path)) not in ("clara", "pisco"):
                raise CheckpointError(
                    f"{path}: a model folder of {theirs!r:.40}, not of CLaRa; "
                    "clara_mlx.load opens any that this clara-mlx knows"
                )
            raise CheckpointError(
                f"{path}: format {written!r}, but this clara-mlx reads up to {LAYOUT.format}; "
                "update clara-mlx or convert again"
            )
        try:
            config = ClaraConfig.from_dict(description["config"], where=str(path / LAYOUT.clara))
            adapters = tuple(description["adapters"])
            query_adapter = str(description["query_adapter"])
            fingerprint = str(description["fingerprint"])
            dtype = DTYPES[description["dtype"]]
            is_quantised = description["quantization"] is not None
            files: dict[str, int] = description["files"]
            if not {*adapters, query_adapter} <= set(ADAPTERS):
                raise KeyError(f"adapters {adapters}")
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path / LAYOUT.clara}: damaged ({error!r}); convert the checkpoint again"
            ) from error
        check_files(path, files)
        return cls(
            path,
            description,
            config,
            adapters,
            query_adapter,
            fingerprint,
            dtype,
            is_quantised,
            base_config=_read_json(path / LAYOUT.config),
        )

    @property
    def compressor(self) -> str:
        """The name of the compressor that the folder belongs to."""
        return str(self.description.get("compressor", CLARA))

    def compute_dtype(self) -> mx.Dtype:
        """float32 on a CPU, whose half-precision kernels are many times slower; else `dtype`."""
        on_cpu = mx.default_device().type == mx.DeviceType.cpu
        return mx.float32 if on_cpu else self.dtype

    def tokenizer(self) -> TextTokenizer:
        """The folder's tokenizer, for text as content."""
        return read_tokenizer(self.path / LAYOUT.tokenizer)

    def load_base(self) -> nn.Module:
        """The base as an mlx-lm model, weights as stored and not yet read from disk."""
        from mlx_lm.utils import load_model

        try:
            check_folder(self.path)
            model, _ = load_model(self.path, lazy=True)
        except (ValueError, RuntimeError, KeyError, TypeError, OSError) as error:
            raise CheckpointError(f"{self.path}: {error}; convert the checkpoint again") from error
        return model

    def memory_rows(self) -> mx.array:
        """Trained embedding rows of the added tokens (added_tokens, hidden), source dtype."""
        return load_arrays(self.path / LAYOUT.memory_tokens)["embed_tokens.weight"]

    def adapter(self, name: str) -> dict[str, mx.array]:
        """One adapter's tensors, named ``<target>.lora_a`` and ``<target>.lora_b``."""
        return load_arrays(self.path / LAYOUT.adapter.format(name))


def compressor_of(path: Path) -> str:
    """The name of the compressor that a model folder belongs to; CLaRa if it names none.

    Raises:
        CheckpointError: It is not a model folder, or its description is damaged.
    """
    name = describe(path).get("compressor", CLARA)
    if not isinstance(name, str):
        raise CheckpointError(f"{path / LAYOUT.clara}: its compressor is {name!r}, not a name")
    return name


def read_tokenizer(path: Path) -> TextTokenizer:
    """A ``tokenizer.json``, for text as content.

    Raises:
        CheckpointError: It can't be read, or is not a tokenizer.
    """
    try:
        content = read_regular(path).decode("utf-8", "replace")
    except OSError as error:
        raise CheckpointError(f"{path}: {reason(error)}") from error
    return TextTokenizer(content, where=str(path))


def describe(path: Path) -> dict[str, Any]:
    """What a model folder's ``clara.json`` says, whichever compressor the folder belongs to.

    Raises:
        CheckpointError: It is not a model folder, or its description is damaged.
    """
    if not (path / LAYOUT.clara).is_file():
        raise CheckpointError(
            f"{path}: not a model folder (no {LAYOUT.clara}); "
            "make one with: clara-mlx convert CHECKPOINT --to FOLDER"
        )
    return _read_json(path / LAYOUT.clara)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(path, MOST_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {reason(error)}; convert the checkpoint again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object; convert the checkpoint again")
    return content


def check_files(folder: Path, sizes: dict[str, int]) -> None:
    """Refuse a folder whose files are not all there in the sizes that were recorded, in bytes.

    Raises:
        CheckpointError: The message names each that is missing or has another size.
    """
    problems = []
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != size:
            problems.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
    if problems:
        raise CheckpointError(
            f"{folder}: {'; '.join(problems)}; copy it again or convert the checkpoint again"
        )


def load_arrays(path: Path) -> dict[str, mx.array]:
    """The arrays of a safetensors file; each is read from disk when it is used."""
    try:
        check_regular(path)
        if os.fsencode(path) != str(path).encode("utf-8", "surrogatepass"):
            raise CheckpointError(
                f"{path}".encode("utf-8", "backslashreplace").decode()
                + ": mlx reads paths in UTF-8 only; set PYTHONUTF8=1, or rename the folder"
            )
        arrays = mx.load(str(path))
    except (ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{path}: {error}; the file is damaged or missing") from error
    assert isinstance(arrays, dict)  # what mlx gives for .safetensors
    return arrays


def resolve(path_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model folder given as a path or as a hub id."""
    path = Path(path_or_hub_id).expanduser()
    if path.exists():
        return path
    return download(str(path_or_hub_id), _HUB_PATTERNS, revision)


def download(repo: str, patterns: list[str], revision: str | None = None) -> Path:
    """Fetch the files of a hub repository that match; files in the local cache are kept.

    huggingface_hub shows the progress, resumes, and reads ``HF_TOKEN`` and ``HF_HUB_OFFLINE``.

    Raises:
        CheckpointError: There is no such folder or repository, or it can't be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise CheckpointError(
            f"{repo}: neither a folder here nor a hub id; check the path"
        ) from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{repo}: no such folder, not in the local hub cache, and the hub can't be reached; "
            "check the path, the network and HF_HUB_OFFLINE"
        ) from error
    except HfHubHTTPError as error:
        first_line = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{repo}: no such folder, and the hub refused it: {first_line} "
            "(private or gated repositories need `hf auth login`)"
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"{repo}: download failed: {error}; run it again to resume"
        ) from error
