"""A checkpoint of LLMLingua-2's encoders: found, checked and described; weights not yet read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from clara_mlx.compressors.llmlingua2.encoder import EncoderConfig, TokenClassifier
from clara_mlx.compressors.llmlingua2.folder import EncoderFolder
from clara_mlx.compressors.llmlingua2.words import Reader
from clara_mlx.convert import files, weight_map
from clara_mlx.convert.downloads import is_named
from clara_mlx.convert.encoder_tokenizer import read_encoder_tokenizer
from clara_mlx.convert.tensors import TensorRef
from clara_mlx.convert.weight_map import Weight, clean_key
from clara_mlx.errors import CheckpointError
from clara_mlx.model.tokenizer import TextTokenizer

# The prefix of an encoder's tensor names, by the architecture that its config names.
_ARCHITECTURES = {
    "BertForTokenClassification": "bert",
    "XLMRobertaForTokenClassification": "roberta",
}

# Files of such a checkpoint that a conversion needs.
_CHECKPOINT_FILES = (
    *("config.json", "model*.safetensors*", "pytorch_model.bin", "*.pth", "tokenizer*.json"),
    *("vocab.txt", "sentencepiece.bpe.model", "README.md", "LICENSE*"),
)

# Files that hold all weights, in the order in which they are looked for.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.pth", "pytorch_model.pth")

# A part of our network -> of Hugging Face's.
_NAMES = {
    "embeddings.tokens": "embeddings.word_embeddings",
    "embeddings.positions": "embeddings.position_embeddings",
    "embeddings.segments": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}

# What some checkpoints hold and no token's rating depends on.
_UNUSED = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")

_MOST_PROBLEMS = 20  # that one message lists


@dataclass(frozen=True)
class TokenClassifierSource:
    """A checkpoint whose config, tensors and tokenizer fit each other. Made by `open`."""

    name: str  # full path or hub id
    subfolder: str | None
    revision: str | None  # the hub commit
    path: Path
    config: EncoderConfig
    tokenizer: str  # the content of a tokenizer.json
    table: Mapping[str, Weight]  # by the source's names
    tensors: dict[str, TensorRef]
    notes: list[str]
    licences: dict[str, str | None]

    @classmethod
    def open(
        cls, checkpoint: str | Path, *, subfolder: str | None = None, revision: str | None = None
    ) -> TokenClassifierSource:
        """Find a checkpoint, download what is not here, and check that its parts fit.

        Args:
            checkpoint: Folder or hub id.
            subfolder: Folder of the checkpoint inside its repository.
            revision: Branch, tag or commit of a hub checkpoint.

        Raises:
            CheckpointError: Something is missing, damaged or does not fit; tensors that are
                missing, unexpected or of another shape are listed.
        """
        inside = f"{subfolder}/" if subfolder else ""
        patterns = tuple(inside + name for name in _CHECKPOINT_FILES)
        root = files.locate_folder(checkpoint, patterns, revision)
        path = root / subfolder if subfolder else root
        where = path / "config.json"
        fields = files.read_json(where)
        prefix = _prefix_of(fields)
        if prefix is None:
            raise CheckpointError(
                f"{where}: not an encoder with a head that rates tokens (architectures: "
                f"{' or '.join(_ARCHITECTURES)})"
            )
        config = EncoderConfig.from_dict(fields, where=str(where))
        tokenizer = read_encoder_tokenizer(path, config)
        _check_tokenizer(tokenizer, config, path)
        table = _table(config, prefix)
        tensors = _read_tensors(path)
        _check_fit(path, tensors, table)
        unused = [name for name in tensors if table[name].target is None]
        return cls(
            name=files.recorded_name(checkpoint),
            subfolder=subfolder,
            revision=root.name if root.parent.name == "snapshots" else None,
            path=path,
            config=config,
            tokenizer=tokenizer,
            table=table,
            tensors=tensors,
            notes=[f"left out, as nothing depends on it: {', '.join(unused)}"] if unused else [],
            licences={"checkpoint": files.read_licence(path)},
        )

    @classmethod
    def open_recorded(
        cls, folder: EncoderFolder, *, checkpoint: str | None = None
    ) -> TokenClassifierSource:
        """Open the checkpoint that a folder says it was made from, or the one given instead.

        Raises:
            CheckpointError: It is not there any more, or is another one.
        """
        recorded = folder.description["source"]
        return cls.open(
            checkpoint or recorded["checkpoint"],
            subfolder=None if checkpoint else recorded["subfolder"],
            revision=None if checkpoint else recorded["revision"],
        )

    @property
    def files_by_part(self) -> dict[str, dict[str, Path]]:
        """The config and the files with the weights, by part and by their names in it."""
        used = {self.path / "config.json", *(ref.file for ref in self.tensors.values())}
        return {"checkpoint": {file.name: file for file in sorted(used)}}


def is_token_classifier(
    checkpoint: str | Path, subfolder: str | None = None, revision: str | None = None
) -> bool:
    """Whether a checkpoint, a folder or a hub id, is an encoder with a head that rates tokens."""
    inside = f"{subfolder}/" if subfolder else ""
    try:
        root = files.locate_folder(checkpoint, (f"{inside}config.json",), revision)
        fields = files.read_json((root / subfolder if subfolder else root) / "config.json")
    except CheckpointError:
        return False
    return _prefix_of(fields) is not None


def _prefix_of(fields: Mapping[str, Any]) -> str | None:
    """The prefix of the tensor names of the encoder that a config names; None if it names none."""
    named = fields.get("architectures")
    found = [_ARCHITECTURES.get(str(one)) for one in named] if isinstance(named, list) else []
    return found[0] if len(found) == 1 else None


def _table(config: EncoderConfig, prefix: str) -> dict[str, Weight]:
    """Where each tensor goes, by its name in the checkpoint."""
    arrays: Any = tree_flatten(TokenClassifier(config).parameters())  # type: ignore[no-untyped-call]
    lines = [
        Weight(_source_name(target, prefix), target, tuple(array.shape)) for target, array in arrays
    ]
    lines += [Weight(f"{prefix}.{name}", None) for name in _UNUSED]
    return {line.source: line for line in lines}


def _source_name(target: str, prefix: str) -> str:
    """The checkpoint's name for one of our network's weights."""
    part, _, kind = target.rpartition(".")
    if part == "classifier":
        return target
    if part.startswith("layers."):
        _, number, part = part.split(".")
        return f"{prefix}.encoder.layer.{number}.{_NAMES[part]}.{kind}"
    return f"{prefix}.{_NAMES[part]}.{kind}"


def _clean(key: str) -> str:
    """A tensor's name without wrappers, and with the present names of a norm's two vectors."""
    key = clean_key(key)
    for old, new in (
        (".LayerNorm.gamma", ".LayerNorm.weight"),
        (".LayerNorm.beta", ".LayerNorm.bias"),
    ):
        key = key.removesuffix(old) + new if key.endswith(old) else key
    return key


def _read_tensors(path: Path) -> dict[str, TensorRef]:
    """The tensors of a checkpoint, by their cleaned names."""
    if (path / "model.safetensors.index.json").is_file():
        return files.read_base(path)
    found = [path / name for name in _WEIGHTS if is_named(path / name)]
    found = found or sorted(path.glob("*.pth"))[:1]
    if not found:
        raise CheckpointError(
            f"{path}: no weights there ({', '.join(_WEIGHTS)}); download the checkpoint again"
        )
    file = found[0]
    return files.clean_names(files.check_tensors(files.read_weights(file), file), _clean, file)


def _check_fit(path: Path, tensors: dict[str, TensorRef], table: Mapping[str, Weight]) -> None:
    """Refuse tensors that the table does not know, or that it misses; some are listed."""
    problems = weight_map.misfits(tensors, tuple(table.values()), {"layers": 0})
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        raise CheckpointError(
            f"{path} is not the encoder that its config.json describes; nothing was written:\n  "
            + "\n  ".join(problems[:_MOST_PROBLEMS])
            + (f"\n  and {more:,} more" if more > 0 else "")
        )


def _check_tokenizer(content: str, config: EncoderConfig, path: Path) -> None:
    """Refuse a tokenizer that another encoder needs."""
    tokenizer = TextTokenizer(content, where=str(path / "tokenizer.json"))
    try:
        Reader(config, TokenClassifier(config), tokenizer)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    largest = max(tokenizer.full.get_vocab().values(), default=0)
    if largest >= config.vocab_size:
        raise CheckpointError(
            f"{path}: its tokenizer has ids up to {largest}, but its config.json says that there "
            f"are {config.vocab_size} embeddings (vocab_size)"
        )
