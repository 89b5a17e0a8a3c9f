"""Bulk compression: each content once, stripes that go on after a kill, and an index of all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import launched
import numpy as np
import pytest
from safetensors.numpy import load_file

import clara_mlx
from clara_mlx.compressors import bulk
from clara_mlx.compressors.bulk_folder import BulkFolder, Stripe, StripesMissing, merge
from clara_mlx.errors import ClaraError

TEXTS = {f"t{i}.txt": f"line {i}: worker {i * 7} failed\n".encode() * (2 * i + 1) for i in range(6)}
TEXTS |= {
    "copy.txt": TEXTS["t3.txt"],
    "empty.txt": b"",
    "bytes.bin": b"\xff\x00no \x80text",
    "below/utf16.txt": "in UTF-16".encode("utf-16"),
    ".hidden/left-out.txt": b"not read",
}
CONTENTS = {
    hashlib.sha256(data).hexdigest() for name, data in TEXTS.items() if "hidden" not in name
}

Clara = Callable[..., clara_mlx.Clara]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for name, data in TEXTS.items():
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_bytes(data)
    return tmp_path / "texts"


def compress(model: Any, texts: Path, to: Path, stripe: Stripe | None = None) -> bulk.Striped:
    inputs = bulk.read_inputs(bulk.list_files([texts]))
    folder = BulkFolder.open(to, model, "float32")
    return bulk.compress_stripe(model, inputs, stripe or Stripe(), folder)


def read(to: Path) -> dict[str, Any]:
    """The latents of all contents in the index of a folder."""
    index = json.loads((to / "index.json").read_text())
    return {content: load_file(to / part)[content] for content, part in index["parts"].items()}


def test_stripes_together_are_the_whole(clara: Clara, texts: Path, tmp_path: Path) -> None:
    model = clara("c16", "e2e")
    whole = compress(model, texts, tmp_path / "whole")
    assert whole.contents == whole.compressed == len(CONTENTS)
    merge(tmp_path / "whole")
    parts = [compress(model, texts, tmp_path / "striped", Stripe(i, 3)) for i in (0, 2)]
    with pytest.raises(StripesMissing, match="missing: 2/3; compress them with --shard"):
        merge(tmp_path / "striped")
    parts.append(compress(model, texts, tmp_path / "striped", Stripe(1, 3)))
    assert sum(part.contents for part in parts) == len(CONTENTS)
    assert sum(part.source_tokens for part in parts) == whole.source_tokens
    assert merge(tmp_path / "striped")["files"] == len(TEXTS) - 1
    one, other = read(tmp_path / "whole"), read(tmp_path / "striped")
    assert one.keys() == other.keys() == CONTENTS
    for content, latents in one.items():
        assert np.allclose(latents, other[content], atol=1e-4)
    data = TEXTS["t5.txt"]
    expected = np.array(model.compress(data.decode()).latents)
    latents = one[hashlib.sha256(data).hexdigest()]
    assert np.allclose(latents, expected.reshape(latents.shape), atol=1e-4)
    index = json.loads((tmp_path / "striped/index.json").read_text())
    assert index["files"][str(texts / "copy.txt")] == index["files"][str(texts / "t3.txt")]


def test_what_is_there_is_not_compressed_again(
    clara: Clara, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by another division than the one that was interrupted."""
    model = clara("c16", "e2e")
    monkeypatch.setattr(bulk, "_PART_TEXTS", 2)

    def stop(done: int, total: int, what: str = "") -> None:
        if done >= 4:
            raise KeyboardInterrupt

    inputs = bulk.read_inputs(bulk.list_files([texts]))
    folder = BulkFolder.open(tmp_path / "to", model, "float16")
    with pytest.raises(KeyboardInterrupt):
        bulk.compress_stripe(model, inputs, Stripe(), folder, stop)
    damaged = tmp_path / "to/latents-1-of-1-00002.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    halves = [bulk.compress_stripe(model, inputs, Stripe(i, 2), folder) for i in (0, 1)]
    assert sum(half.compressed for half in halves) == len(CONTENTS) - 2
    assert merge(tmp_path / "to")["contents"] == len(CONTENTS)
    assert read(tmp_path / "to").keys() == CONTENTS


def test_what_does_not_belong_together_is_refused(
    clara: Clara, texts: Path, tmp_path: Path
) -> None:
    model, to = clara("c16", "e2e"), tmp_path / "to"
    compress(model, texts, to, Stripe(0, 2))
    with pytest.raises(ClaraError, match=r"another compression \(fingerprint\)"):
        compress(clara("c16", "instruct"), texts, to)
    (texts / "more.txt").write_text("one more")
    compress(model, texts, to, Stripe(1, 2))
    with pytest.raises(ClaraError, match="other files than stripe 1/2: 2/2"):
        merge(to)
    compress(model, texts, to, Stripe(0, 2))
    merge(to)
    part = max(to.glob("latents-*"), key=lambda path: path.stat().st_size)
    data = bytearray(part.read_bytes())
    data[-3] ^= 1
    part.write_bytes(data)
    with pytest.raises(ClaraError, match=r"latents-.*damaged .*delete it and compress again"):
        merge(to)
    part.unlink()
    with pytest.raises(ClaraError, match="missing or damaged; copy it here again"):
        merge(to)


def test_a_new_division_takes_the_place_of_the_old_one(
    clara: Clara, texts: Path, tmp_path: Path
) -> None:
    model, to = clara("c16", "e2e"), tmp_path / "to"
    compress(model, texts, to)
    kept = (to / "stripe-1-of-1.json").read_text()
    (texts / "more.txt").write_text("one more")
    for number in (0, 1):
        compress(model, texts, to, Stripe(number, 2))
    assert merge(to)["contents"] == len(CONTENTS) + 1
    (to / "stripe-1-of-1.json").write_text(kept)  # copied from elsewhere
    with pytest.raises(ClaraError, match=r"several divisions \(1/1, 1/2\)"):
        merge(to)


def test_a_file_that_changes_meanwhile(clara: Clara, texts: Path, tmp_path: Path) -> None:
    model = clara("c16", "e2e")
    inputs = bulk.read_inputs(bulk.list_files([texts]))
    (texts / "t1.txt").write_text("rewritten")
    with pytest.raises(ClaraError, match=r"t1.txt: has changed since"):
        bulk.compress_stripe(
            model, inputs, Stripe(), BulkFolder.open(tmp_path / "to", model, "float16")
        )


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "1.0/2"])
def test_what_is_no_stripe(text: str) -> None:
    with pytest.raises(ValueError, match="write i/n"):
        Stripe.parse(text)


def test_the_command(cli: Any, folder: Any, texts: Path, tmp_path: Path) -> None:
    model, to = folder("c16", "e2e"), tmp_path / "to"
    given = ("compress", texts, "--model", model, "--to", to)
    first = cli(*given, "--shard", "1/2")
    assert "stripe 1/2" in first.stdout and "missing: 2/2" in first.stderr
    second = json.loads(cli(*given, "--shard", "2/2", "--json").stdout)
    assert second["merged"]["contents"] == len(CONTENTS)
    assert json.loads(cli("compress", "--merge", "--to", to, "--json").stdout)["merged"]
    for words, expected in {
        ("--shard", "1/2"): "--shard and --merge need --to",
        ("--to", str(to)): "name the files",
        (str(texts), "--to", str(to), "--model", "x", "--shard", "3/2"): "write i/n",
        (str(tmp_path / "none"), "--to", str(to), "--model", str(model)): "No such file",
    }.items():
        result = cli("compress", *words, ok=False)
        assert result.exit_code and expected in result.output.replace("\n", " "), words


@pytest.mark.alone
def test_ranks_each_take_their_stripe(folder: Any, texts: Path, tmp_path: Path) -> None:
    """As mlx.launch starts them; the first merges, and alone says what was done."""
    to = tmp_path / "to"
    given = ("compress", texts, "--model", folder("c16", "e2e"), "--to", to, "--json")
    result = json.loads(launched.run(tmp_path, *given))
    assert [one["stripe"] for one in result["stripes"]] == ["1/2", "2/2"]
    assert sum(one["compressed"] for one in result["stripes"]) == len(CONTENTS)
    assert result["merged"]["contents"] == len(CONTENTS)
    assert read(to).keys() == CONTENTS
