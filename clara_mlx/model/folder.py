"""The model folder on disk: the one module that knows its layout.

A model folder is also an mlx-lm model: the base in its root, adapters in mlx-lm's adapter format
under ``adapters/<name>/``. What is ours stands in ``clara.json`` and ``memory_tokens.safetensors``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Layout:
    """File names inside a model folder."""

    format: int = 1  # of clara.json; a reader refuses a newer one
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

_DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}

#: Names of the adapters a model folder can hold.
ADAPTERS = ("encoder", "decoder", "query_reasoner")


class ModelFolder:
    """An opened model folder: its description is read and checked, its weights are not loaded.

    Raises:
        CheckpointError: no such folder, not a model folder, a newer format, or a file that is
            missing or has another size than ``clara.json`` recorded.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / LAYOUT.clara).is_file():
            raise CheckpointError(
                f"{self.path}: not a model folder (no {LAYOUT.clara}); "
                "make one with: clara-mlx convert CHECKPOINT --to FOLDER"
            )
        self.description = self._json(LAYOUT.clara)
        written = self.description.get("format")
        if type(written) is not int or written > LAYOUT.format:
            raise CheckpointError(
                f"{self.path}: format {written!r}, but this clara-mlx reads up to "
                f"{LAYOUT.format}; update clara-mlx or convert again"
            )
        try:
            self.config, _ = ClaraConfig.from_dict(
                self.description["config"], where=str(self.path / LAYOUT.clara)
            )
            self.adapters = tuple(self.description["adapters"])
            self.query_adapter = str(self.description["query_adapter"])
            self.fingerprint = str(self.description["fingerprint"])
            self.dtype = _DTYPES[self.description["dtype"]]
            self.is_quantised = self.description["quantization"] is not None
            files: dict[str, int] = self.description["files"]
            if not {*self.adapters, self.query_adapter} <= set(ADAPTERS):
                raise KeyError(f"adapters {self.adapters}")
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.path / LAYOUT.clara}: damaged ({error!r}); convert the checkpoint again"
            ) from error
        self._check_files(files)
        #: The base's ``config.json``, as mlx-lm reads it.
        self.base_config = self._json(LAYOUT.config)

    def compute_dtype(self) -> mx.Dtype:
        """float32 on a CPU, whose half-precision kernels are many times slower; else as stored."""
        on_cpu = mx.default_device().type == mx.DeviceType.cpu
        return mx.float32 if on_cpu else self.dtype

    def tokenizer(self) -> TextTokenizer:
        """The folder's tokenizer, for text as content."""
        path = self.path / LAYOUT.tokenizer
        return TextTokenizer(path.read_bytes().decode("utf-8", "replace"), where=str(path))

    def load_base(self) -> nn.Module:
        """The base as an mlx-lm model, weights as stored and not yet read from disk."""
        from mlx_lm.utils import load_model

        try:
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

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: {error}; convert the checkpoint again") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path}: not a JSON object; convert the checkpoint again")
        return content

    def _check_files(self, files: dict[str, int]) -> None:
        problems = []
        for name, size in files.items():
            path = self.path / name
            if not path.is_file():
                problems.append(f"{name} is missing")
            elif path.stat().st_size != size:
                problems.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
        if problems:
            raise CheckpointError(
                f"{self.path}: {'; '.join(problems)}; copy it again or convert the checkpoint again"
            )


def load_arrays(path: Path) -> dict[str, mx.array]:
    """The arrays of a safetensors file, read when they are used."""
    try:
        arrays = mx.load(str(path))
    except (ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{path}: {error}; the file is damaged or gone") from error
    assert isinstance(arrays, dict)  # what mlx gives for .safetensors
    return arrays


def resolve(path_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model folder given as a path or as a hub id."""
    path = Path(path_or_hub_id).expanduser()
    if path.exists():
        return path
    return download(str(path_or_hub_id), _HUB_PATTERNS, revision)


def download(repo: str, patterns: list[str], revision: str | None = None) -> Path:
    """Fetch the files of a hub repository that match; what is already there is kept.

    Progress, resuming, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are huggingface_hub's.

    Raises:
        CheckpointError: no such folder nor repository, or it can't be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise CheckpointError(f"{repo}: no such folder, and not a hub id either") from error
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
