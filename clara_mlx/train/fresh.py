"""A fresh start: a plain base becomes a CLaRa checkpoint with new memory tokens and adapters."""

from __future__ import annotations

import random
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.convert import Source, convert
from clara_mlx.convert.base import Base
from clara_mlx.convert.disk import check_space, write_json
from clara_mlx.convert.export import reference_config, write_checkpoint
from clara_mlx.convert.files import BASE_FILES, locate_folder, read_base, read_json, recorded_name
from clara_mlx.convert.tensors import ITEM_SIZES, TensorRef
from clara_mlx.convert.weight_map import (
    ADAPTER,
    ADAPTER_NAMES,
    TABLES,
    expand,
    inverse,
)
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.folder import LAYOUT, ModelFolder
from clara_mlx.model.schemes import Quantisation
from clara_mlx.train.config import Fresh
from clara_mlx.train.parameters import new_adapter

_TRAINED = ("encoder", "decoder")  # the adapters of a fresh start


@dataclass(frozen=True)
class Start:
    """What a fresh run starts from, checked against its base; `write` makes it."""

    fresh: Fresh
    seed: int
    root: Path  # of what will be written
    source: Source  # the checkpoint, whose own tensors are made when they are read

    @classmethod
    def plan(cls, fresh: Fresh, output: Path, seed: int) -> Start:
        """Check a base, and plan what will be written below ``output``; nothing is written.

        Raises:
            CheckpointError: The base is not usable; see also `clara_mlx.convert.Source`.
        """
        if fresh.dtype not in ITEM_SIZES:
            raise CheckpointError(
                f"fresh.dtype {fresh.dtype!r} is not one of {', '.join(ITEM_SIZES)}"
            )
        _quantisation(fresh)
        root = output / "start"
        base = locate_folder(fresh.base, BASE_FILES)
        refs = read_base(base)
        if TABLES[0] not in refs:
            raise CheckpointError(f"{base}: not a base for CLaRa (it has no {TABLES[0]})")
        opened = Base.open(
            base,
            base,
            {
                "doc_max_length": fresh.doc_max_length,
                "compr_rate": fresh.compr_rate,
                "lora_r": fresh.lora_r,
                "training_stage": "stage1",
            },
        )
        config, sizes = opened.config, opened.sizes
        path = root / "checkpoint"
        tables = {}
        for name in TABLES:
            ref = refs.get(name) or refs[TABLES[0]]  # a tied lm_head is the embedding
            tables[name] = TensorRef(
                (config.vocab_size, *ref.shape[1:]),
                ref.dtype,
                path / "decoder_first_last_layers.pth",
                partial(_add_rows, ref, config, fresh.row_spread, seed, name),
            )
        adapters = {
            theirs: _empty_adapter(sizes, seed, ours, refs[TABLES[0]].dtype, path)
            for theirs, ours in ADAPTER_NAMES.items()
            if ours in _TRAINED
        }
        source = Source.assemble(
            path,
            reference_config(config, fresh.base),
            tables,
            adapters,
            name=str(path),
            base_name=recorded_name(fresh.base),
            base_path=base,
            asked_base=fresh.base,
        )
        return cls(fresh, seed, root, source)

    @property
    def folder(self) -> Path:
        """The model folder that the run starts from."""
        return self.root / "model"

    @property
    def is_written(self) -> bool:
        """Whether the model folder is there.

        Raises:
            CheckpointError: It is there, but it was made for another [fresh] or seed.
        """
        if not (self.folder / LAYOUT.clara).exists():
            return False
        record = self.root / "fresh.json"
        if record.exists() and read_json(record) != self._record:
            raise CheckpointError(
                f"{self.root}: was made for another [fresh] or seed; delete it, or choose another "
                "output"
            )
        return True

    @property
    def _record(self) -> dict[str, Any]:
        return asdict(self.fresh) | {"seed": self.seed}

    @property
    def trained(self) -> dict[str, int]:
        """The number of weights of each adapter."""
        return {
            name: sum(ref.size for ref in self.source.adapters[name].values()) for name in _TRAINED
        }

    def sizes(self) -> dict[str, int]:
        """The bytes of each folder that `write` makes, by its path."""
        source = self.source
        adapters = [ref for tensors in source.adapters.values() for ref in tensors.values()]
        own = sum(ref.nbytes for ref in (*(source.base[name] for name in TABLES), *adapters))
        quantisation, item_size = _quantisation(self.fresh), ITEM_SIZES[self.fresh.dtype]
        model = sum(ref.size * item_size for ref in adapters)
        for ref in source.base.values():
            format = quantisation and quantisation.fitted(ref.shape)
            model += format.nbytes(ref.shape, item_size) if format else ref.size * item_size
        return {str(source.path): own, str(self.folder): model}

    def write(self) -> Path:
        """Write the checkpoint in Hugging Face's layout, and convert it as any other.

        Returns:
            The model folder.

        Raises:
            CheckpointError: The disk is too full, or see `clara_mlx.convert.convert`; what was
                written is removed.
        """
        made = next(p for p in (self.root, *self.root.parents) if p.parent.exists())
        try:
            check_space(made.parent, sum(self.sizes().values()))
            source = self.source
            write_checkpoint(
                source.path,
                source.config,
                base=self.fresh.base,
                layers=source.sizes["layers"],
                adapters={
                    name: {
                        line.target: source.adapters[name][line.source].read().T
                        for line in inverse(ADAPTER, source.sizes["layers"]).values()
                        if line.target
                    }
                    for name in _TRAINED
                },
                tables={name: source.base[name].read() for name in TABLES},
                tokenizer=source.base_path,
            )
            convert(
                Source.open(source.path, base=self.fresh.base),
                self.folder,
                quantisation=_quantisation(self.fresh),
                dtype=self.fresh.dtype,
            )
            write_json(self.root / "fresh.json", self._record)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        return ModelFolder.open(self.folder).path


def _quantisation(fresh: Fresh) -> Quantisation | None:
    return Quantisation(fresh.bits) if fresh.bits else None


def _empty_adapter(
    sizes: dict[str, int], seed: int, name: str, dtype: str, path: Path
) -> dict[str, TensorRef]:
    """A new adapter's tensors, by the checkpoint's names."""
    made: dict[str, mx.array] = {}

    def read(target: str) -> mx.array:
        if not made:
            made.update(new_adapter(adapter_shapes(sizes), seed, name))
        return made[target].T.astype(getattr(mx, dtype))

    return {
        line.source: TensorRef(
            line.numbers(sizes), dtype, path / "adapters.pth", partial(read, str(line.target))
        )
        for line in expand(ADAPTER, sizes["layers"]).values()
        if line.target
    }


def adapter_shapes(sizes: dict[str, int]) -> dict[str, mx.array]:
    """Unevaluated arrays of an adapter's shapes, by our names: A (in, rank), B (rank, out)."""
    lines = [line for line in expand(ADAPTER, sizes["layers"]).values() if line.target]
    return {str(line.target): mx.zeros(list(reversed(line.numbers(sizes)))) for line in lines}


def _add_rows(ref: TensorRef, config: ClaraConfig, spread: float, seed: int, name: str) -> mx.array:
    """A table with a new row for each added token, drawn around the mean of the known rows."""
    table = ref.read()
    known = table[: config.base_vocab_size].astype(mx.float32)
    if known.shape[0] < config.base_vocab_size:
        raise CheckpointError(
            f"{name} has {known.shape[0]} rows, but the tokenizer has {config.base_vocab_size} ids"
        )
    key = mx.random.key(random.Random(f"{seed} {name}").getrandbits(63))
    noise = mx.random.normal((len(config.added_tokens), table.shape[1]), key=key)
    rows: Any = known.mean(axis=0) + spread * known.std(axis=0) * noise
    return mx.concatenate([known, rows]).astype(table.dtype)
