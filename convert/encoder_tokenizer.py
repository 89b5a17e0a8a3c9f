"""The tokenizer of an encoder's checkpoint: its tokenizer.json, or one made from a vocab.txt."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

from clara_mlx.compressors.llmlingua2.encoder import EncoderConfig
from clara_mlx.convert.downloads import check_download, is_named
from clara_mlx.convert.files import read_json
from clara_mlx.errors import CheckpointError, reason
from clara_mlx.model.regular import read_regular

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def read_encoder_tokenizer(path: Path, config: EncoderConfig) -> str:
    """The content of a ``tokenizer.json`` for the checkpoint in a folder.

    Raises:
        CheckpointError: It has no tokenizer, or one in a form that is not read.
    """
    if is_named(path / "tokenizer.json"):
        return _read(path / "tokenizer.json")
    if config.model_type == "bert" and is_named(path / "vocab.txt"):
        return _from_vocabulary(path)
    model = path / "sentencepiece.bpe.model"
    if is_named(model):
        raise CheckpointError(
            f"{model}: a tokenizer in the form of SentencePiece, which is not read; write a "
            "tokenizer.json with transformers: "
            f"AutoTokenizer.from_pretrained({str(path)!r}).save_pretrained({str(path)!r})"
        )
    raise CheckpointError(f"there is no tokenizer.json in {path}; download it again")


def _from_vocabulary(path: Path) -> str:
    """A tokenizer made from a vocabulary with a token a line, as transformers makes it."""
    lines = _read(path / "vocab.txt").rstrip("\n").split("\n")
    vocabulary = {line.rstrip("\r"): number for number, line in enumerate(lines)}
    missing = [token for token in _SPECIAL if token not in vocabulary]
    if missing:
        raise CheckpointError(f"{path / 'vocab.txt'}: it has no {', '.join(missing)}")
    settings: dict[str, object] = {}
    if is_named(path / "tokenizer_config.json"):
        settings = read_json(path / "tokenizer_config.json")
    tokenizer = BertWordPieceTokenizer(
        vocabulary,
        lowercase=settings.get("do_lower_case", True) is not False,
        strip_accents=None,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True) is not False,
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    return tokenizer.to_str()


def _read(path: Path) -> str:
    check_download(path)
    try:
        return read_regular(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {reason(error)}") from error
