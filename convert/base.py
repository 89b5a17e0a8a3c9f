"""Base: the model that a checkpoint was trained on, read and checked; its weights are not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clara_mlx.convert import weight_map
from clara_mlx.convert.base_config import mlx_config, read_base_config, special_ids
from clara_mlx.convert.chat_template import read_layout
from clara_mlx.convert.ignored import refuse_ignored
from clara_mlx.convert.trial import try_network, try_prompt
from clara_mlx.convert.vocabulary import add_tokens, read_tokenizer, vocabulary_size
from clara_mlx.convert.weight_map import Weight
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.encoder import is_plain
from clara_mlx.model.layout import PromptLayout
from clara_mlx.model.network import build_network, check_network, shapes
from clara_mlx.model.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Base:
    """A base on which a checkpoint's CLaRa fields make sense, and that mlx-lm can run."""

    path: Path  # the folder with its config.json
    mlx_config: dict[str, Any]  # what mlx-lm reads of that file, with the added tokens
    config: ClaraConfig  # the checkpoint's, completed
    layout: PromptLayout | None  # of the checkpoint's or the base's chat template, if one has any
    tokenizer: dict[str, Any]  # the parsed tokenizer.json with the added tokens in it
    sizes: dict[str, int]  # by the weight map's shape names
    table: tuple[Weight, ...]  # the weight map
    is_tied: bool  # whether its lm_head is its embedding

    @classmethod
    def open(cls, path: Path, checkpoint: Path, fields: Mapping[str, Any]) -> Base:
        """Read a base's config, tokenizer and chat template, and check that CLaRa can use it.

        Args:
            path: Its folder.
            checkpoint: The checkpoint's folder, whose chat template comes first.
            fields: The checkpoint's ``config.json``.

        Raises:
            CheckpointError: A file is missing or damaged, or the base is not supported.
        """
        where = path / "config.json"
        raw = read_base_config(path)
        tokenizer = read_tokenizer(path, checkpoint)
        layout = read_layout(path, checkpoint, tokenizer)
        config = _complete(fields, raw, tokenizer, layout, path, checkpoint)
        add_tokens(tokenizer, config, path)
        sizes = weight_map.dimensions(raw, config.vocab_size, config.lora_r, where=str(where))
        final = mlx_config(raw, config.vocab_size, where=where)
        network = build_network(final, where=where)
        check_network(network, where=where)
        if is_plain(network):
            refuse_ignored(final, network, where=where)
        else:  # it has windows of its own, layer by layer
            config = replace(config, window=raw.get("max_position_embeddings") or config.window)
        table = weight_map.base_table(shapes(network))
        try_network(network, config, where=where)
        try_prompt(config, TextTokenizer(json.dumps(tokenizer), where=str(path)), where=where)
        is_tied = raw.get("tie_word_embeddings") is True
        return cls(path, final, config, layout, tokenizer, sizes, table, is_tied)


def _complete(
    fields: Mapping[str, Any],
    raw: dict[str, Any],
    tokenizer: dict[str, Any],
    layout: PromptLayout | None,
    path: Path,
    checkpoint: Path,
) -> ClaraConfig:
    """The checkpoint's config, completed from its base's."""
    windows = [raw.get("max_position_embeddings")]
    if raw.get("use_sliding_window", True):
        windows.append(raw.get("sliding_window"))
    if not any(type(window) is int for window in windows):
        raise CheckpointError(
            f"{path / 'config.json'}: it has no max_position_embeddings, which says how many "
            "tokens the base can attend to; add it"
        )
    ids = special_ids(raw, path, tokenizer)
    if layout and layout.turn_end is None:  # training has to teach where an answer ends
        layout = replace(layout, close=(*layout.close, ids["eos_id"]))
    config = ClaraConfig.from_dict(
        {
            **fields,
            "hidden_size": raw.get("hidden_size"),
            "base_vocab_size": vocabulary_size(tokenizer),
            "window": min((w for w in windows if type(w) is int), default=None),
            **ids,
            "prompt": layout,
        },
        where=f"{checkpoint / 'config.json'} (with {path / 'config.json'})",
    )
    published = PromptLayout.published(config.bos_id, config.eos_id)
    if layout and replace(layout, template="") == published:
        config = replace(config, prompt=None)
    return config
