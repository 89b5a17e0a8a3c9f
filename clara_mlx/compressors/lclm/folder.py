"""An LCLM model folder on disk: encoder and decoder as mlx-lm models, and the adapter between them.

``decoder/`` is what mlx-lm's own programs can chat with: without regions of latents it is an
ordinary chat model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from clara_mlx.compressors.lclm.config import LclmConfig
from clara_mlx.compressors.lclm.encoder import Adapter
from clara_mlx.errors import CheckpointError
from clara_mlx.model import few_rows
from clara_mlx.model.encoder import MemoryTokenEmbedding
from clara_mlx.model.folder import (
    DTYPES,
    LAYOUT,
    check_files,
    compressor_of,
    describe,
    load_arrays,
    read_tokenizer,
)
from clara_mlx.model.regular import check_folder
from clara_mlx.model.tokenizer import TextTokenizer

#: The name in the register of compressors, and in clara.json.
NAME = "lclm"

#: Of its clara.json. Versions of clara-mlx that know CLaRa's folders only read up to 2.
FORMAT = 3

ENCODER = "encoder"  # folders inside the folder
DECODER = "decoder"
ADAPTER_FILE = "adapter/adapter.safetensors"
ROWS_FILE = "decoder/memory_tokens.safetensors"  # exact rows of the decoder's three added tokens
ROWS = "embed_tokens.weight"  # their tensor's name


@dataclass(frozen=True)
class LclmFolder:
    """A folder whose description has been read and checked. Made by `open`."""

    path: Path
    description: dict[str, Any]  # what clara.json says
    config: LclmConfig
    fingerprint: str  # of checkpoint, quantisation and dtype
    dtype: mx.Dtype  # of its weights, or the one that they had before they were quantised
    is_quantised: bool

    @classmethod
    def open(cls, path: str | Path) -> LclmFolder:
        """Read and check a folder's description; its weights are not loaded.

        Raises:
            CheckpointError: It is not an LCLM folder or of a newer format, or a file is missing or
                has another size than ``clara.json`` recorded.
        """
        path = Path(path)
        if (theirs := compressor_of(path)) != NAME:
            raise CheckpointError(
                f"{path}: a model folder of {theirs!r:.40}, not of LCLM; clara_mlx.load opens any"
            )
        description = describe(path)
        written = description.get("format")
        if type(written) is not int or written > FORMAT:
            raise CheckpointError(
                f"{path}: format {written!r}, but this clara-mlx reads up to {FORMAT}; "
                "update clara-mlx or convert again"
            )
        where = path / LAYOUT.clara
        try:
            config = LclmConfig.from_dict(description["config"], where=str(where))
            fingerprint = str(description["fingerprint"])
            dtype = DTYPES[description["dtype"]]
            is_quantised = description["quantization"] is not None
            files: dict[str, int] = dict(description["files"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{where}: damaged ({error!r}); convert the checkpoint again"
            ) from error
        check_files(path, files)
        return cls(path, description, config, fingerprint, dtype, is_quantised)

    def compute_dtype(self) -> mx.Dtype:
        """float32 on a CPU, whose half-precision kernels are many times slower; else `dtype`."""
        on_cpu = mx.default_device().type == mx.DeviceType.cpu
        return mx.float32 if on_cpu else self.dtype

    def tokenizer(self, part: str) -> TextTokenizer:
        """The tokenizer of the encoder or the decoder."""
        return read_tokenizer(self.path / part / LAYOUT.tokenizer)

    def load_network(self, part: str, dtype: mx.Dtype) -> Any:
        """Encoder or decoder as an mlx-lm model, not yet read; in ``dtype`` unless quantised."""
        from mlx_lm.utils import load_model

        try:
            check_folder(self.path / part)
            network, _ = load_model(self.path / part, lazy=True)
        except (ValueError, RuntimeError, KeyError, TypeError, OSError) as error:
            raise CheckpointError(
                f"{self.path / part}: {error}; convert the checkpoint again"
            ) from error
        if not self.is_quantised:
            network.set_dtype(dtype)
        return network

    def load_decoder(self, dtype: mx.Dtype) -> Any:
        """The decoder, with the exact rows of its added tokens in its table of embeddings."""
        network = self.load_network(DECODER, dtype)
        rows = load_arrays(self.path / ROWS_FILE).get(ROWS)
        if rows is None or rows.shape != (3, self.config.hidden_size):
            raise CheckpointError(
                f"{self.path / ROWS_FILE}: not the rows of the added tokens; convert again"
            )
        network.model.embed_tokens = TiedMemoryTokenEmbedding(
            network.model.embed_tokens, rows, self.config.memory_start_id, dtype
        )
        return network

    def load_adapter(self, dtype: mx.Dtype) -> Adapter:
        """The adapter; its weights are never quantised."""
        adapter = Adapter(self.config.encoder_hidden, self.config.hidden_size)
        file = self.path / ADAPTER_FILE
        try:
            adapter.load_weights(list(load_arrays(file).items()))
        except ValueError as error:
            raise CheckpointError(f"{file}: {error}; convert the checkpoint again") from error
        adapter.set_dtype(dtype)
        return adapter


class TiedMemoryTokenEmbedding(MemoryTokenEmbedding):
    """A table with exact rows for the added tokens, which may be the output layer, too."""

    def __call__(self, ids: mx.array) -> mx.array:
        """Embeddings of ids (...) as (..., hidden); ids beyond the added ones read the table."""
        last = self._first_id + self.rows.shape[0] - 1
        table = self.table(ids).astype(self._dtype)
        added = mx.clip(ids.astype(mx.int32) - self._first_id, 0, self.rows.shape[0] - 1)
        is_added = ((ids >= self._first_id) & (ids <= last))[..., None]
        return mx.where(is_added, self.rows[added].astype(self._dtype), table)

    def as_linear(self, h: mx.array) -> mx.array:
        """Logits (..., rows) of states, as the stored table gives them."""
        if isinstance(self.table, nn.QuantizedEmbedding):
            logits: mx.array = self.table.as_linear(h)
            return logits
        return few_rows.multiply(h, self.table.weight)
