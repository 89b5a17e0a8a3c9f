"""The model folder of an LLMLingua-2 encoder: opened, checked, and its network loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from clara_mlx.compressors.llmlingua2.encoder import EncoderConfig, TokenClassifier
from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import (
    DTYPES,
    LAYOUT,
    check_files,
    describe,
    load_arrays,
    read_tokenizer,
)
from clara_mlx.model.schemes import Quantisation, Scheme
from clara_mlx.model.tokenizer import TextTokenizer

#: The name in ``clara.json``, and in the register of compressors.
NAME = "llmlingua2"

#: The newest format of such a folder's ``clara.json``.
FORMAT = 1


class EncoderScheme(Scheme):
    """How an encoder's matrices are quantised: those of its blocks, and the tokens' embeddings.

    The tables of positions and segments and the two rows of the classifier are small, and every
    token depends on them: they stay as they are.
    """

    def format_of(self, name: str, shape: tuple[int, ...]) -> Quantisation | None:
        """The format of a tensor; None if it is not quantised."""
        return super().format_of(name, shape) if self.concerns(name) else None

    @staticmethod
    def concerns(name: str) -> bool:
        """Whether a tensor is of a kind that is quantised at all."""
        is_of_block = name.startswith("layers.") and "norm" not in name
        return is_of_block or name == "embeddings.tokens.weight"


@dataclass(frozen=True)
class EncoderFolder:
    """A folder of an encoder whose description has been read and checked. Made by `open`."""

    path: Path
    description: dict[str, Any]  # what clara.json says
    config: EncoderConfig
    fingerprint: str  # of checkpoint, quantisation and dtype
    dtype: mx.Dtype  # of what is not quantised
    scheme: EncoderScheme | None  # how the matrices are quantised

    @classmethod
    def open(cls, path: str | Path) -> EncoderFolder:
        """Read and check a folder's description; its weights are not loaded.

        Raises:
            CheckpointError: It is not such a folder, of a newer format or damaged, or a file is
                missing or has another size than recorded.
        """
        path = Path(path)
        where = path / LAYOUT.clara
        description = describe(path)
        if description.get("compressor") != NAME:
            raise CheckpointError(f"{path}: not the folder of an LLMLingua-2 encoder")
        written = description.get("format")
        if type(written) is not int or written > FORMAT:
            raise CheckpointError(
                f"{path}: format {written!r}, but this clara-mlx reads up to {FORMAT}; update "
                "clara-mlx or convert again"
            )
        try:
            config = EncoderConfig.from_dict(description["config"], where=str(where))
            quantisation = description["quantization"]
            scheme = EncoderScheme.read(quantisation) if quantisation else None
            check_files(path, description["files"])
            return cls(
                path,
                description,
                config,
                str(description["fingerprint"]),
                DTYPES[description["dtype"]],
                scheme,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{where}: damaged ({error!r}); convert the checkpoint again"
            ) from error

    def load_network(self) -> TokenClassifier:
        """The encoder with its weights; activations are float32 on a CPU, else of `dtype`.

        Raises:
            CheckpointError: A tensor is missing, unexpected or of another shape.
        """
        network = TokenClassifier(self.config)
        if self.scheme:
            quantise_network(network, self.scheme)
        weights: dict[str, mx.array] = {}
        for file in sorted(self.path.glob("model*.safetensors")):
            weights |= load_arrays(file)
        try:
            network.load_weights(list(weights.items()))
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {error}; convert the checkpoint again") from error
        # Half precision is many times slower on a CPU. What belongs to quantised matrices stays as
        # stored; they take the dtype of what they multiply.
        if mx.default_device().type == mx.DeviceType.cpu:
            modules: list[nn.Module] = network.modules()  # type: ignore[no-untyped-call]
            for module in modules:
                if not isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
                    module.update({k: v.astype(mx.float32) for k, v in _own_arrays(module)})
        network.eval()
        mx.eval(network.parameters())  # type: ignore[no-untyped-call]
        return network

    def tokenizer(self) -> TextTokenizer:
        """The encoder's tokenizer, for text as content."""
        return read_tokenizer(self.path / LAYOUT.tokenizer)


def quantise_network(network: TokenClassifier, scheme: EncoderScheme) -> None:
    """Replace the modules of a network that a scheme quantises; their values are not computed."""

    def format_of(path: str, module: nn.Module) -> bool | dict[str, Any]:
        name = f"{path}.weight"
        if "weight" not in module:
            return False
        format = scheme.format_of(name, tuple(module.weight.shape))
        if format is None:
            return False
        return {"bits": format.bits, "group_size": format.group_size, "mode": format.mode}

    nn.quantize(network, class_predicate=format_of)


def _own_arrays(module: nn.Module) -> list[tuple[str, mx.array]]:
    return [(name, value) for name, value in module.items() if isinstance(value, mx.array)]
