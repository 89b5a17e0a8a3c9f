"""The card of a published model folder, made from what ``clara.json`` and its files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join
from typing import Any

from huggingface_hub import ModelCardData

from clara_mlx.convert import licences
from clara_mlx.convert.files import read_json
from clara_mlx.model.folder import LAYOUT, ModelFolder
from clara_mlx.model.schemes import Scheme

# How people write the names of compressors.
_NAMES = {"clara": "CLaRa", "pisco": "PISCO"}


def is_hub_id(name: str | None) -> bool:
    """Whether a recorded place is on the hub; those on a disk are recorded with their full path."""
    return name is not None and not Path(name).is_absolute()


def shown_name(name: str | None) -> str:
    """A recorded place for strangers: a hub id, or the last part of a path."""
    return str(name) if is_hub_id(name) else Path(str(name)).name


def propose_name(folder: ModelFolder, owner: str = "mlx-community") -> str:
    """A repository for a folder, named as mlx-community does: model, ratio, bits."""
    source = folder.description["source"]
    name = shown_name(source["checkpoint"]).rpartition("/")[2]
    scheme = Scheme.of(folder)
    if scheme is None:
        kind = str(folder.description["dtype"]).replace("bfloat16", "bf16")
    elif scheme.recipe:
        kind = scheme.recipe
    elif scheme.default.mode == "affine":
        kind = f"{scheme.default.bits}bit"
    else:
        kind = scheme.default.mode
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in name)
    return f"{owner}/{kept.strip('-.') or 'CLaRa'}-{folder.config.compr_rate}x-{kind}"


def write_card(
    folder: ModelFolder,
    repository: str,
    *,
    licence: Mapping[str, str | None],
    verified: Sequence[str],
) -> str:
    """The text of ``README.md``: metadata for the hub, and facts for people.

    Args:
        folder: The model folder.
        repository: The hub id that it gets.
        licence: The licence of each part, as stated or given.
        verified: Lines about the comparison with the source; empty if there was none.
    """
    sections = [
        f"---\n{_metadata(folder, licence).to_yaml()}\n---",
        f"# {repository}",
        _origin(folder),
        "## Use\n\n"
        f"```bash\npip install clara-mlx\nclara-mlx compress {repository} FILE\n```\n\n"
        f'```python\nimport clara_mlx\n\nclara = clara_mlx.load("{repository}")\n'
        'latents = clara.encode(["some text"])\nprint(clara.answer("a question", latents))\n```\n\n'
        "The base alone is an mlx-lm model, and `adapters/` are mlx-lm's.",
        f"## What is in it\n\n{_contents(folder)}",
        f"## Compared with its source\n\n{_comparison(folder, verified)}",
        f"## Licence\n\n{_licences(licence)}",
        f"## How to make it\n\n{_reproduction(folder)}",
    ]
    return "\n\n".join(sections) + "\n"


def _metadata(folder: ModelFolder, licence: Mapping[str, str | None]) -> ModelCardData:
    source = folder.description["source"]
    checkpoint, base = source["checkpoint"], source["base"]
    stated = licence.get("checkpoint")
    known = stated and (licences.normalise(stated) in licences.OPEN or licences.terms(stated))
    metadata: dict[str, Any] = {
        "library_name": "mlx",
        "tags": ["mlx", folder.compressor, "clara-mlx"],
        "pipeline_tag": "text-generation",
    }
    if stated:
        name = licences.normalise(stated)
        metadata |= {"license": name} if known else {"license": "other", "license_name": name}
    origin = next((place for place in (checkpoint, base) if is_hub_id(place)), None)
    if origin:
        metadata["base_model"] = origin
    if folder.is_quantised and origin == checkpoint:
        metadata["base_model_relation"] = "quantized"
    return ModelCardData(**metadata)


def _origin(folder: ModelFolder) -> str:
    description = folder.description
    source = description["source"]
    where = f", folder `{source['subfolder']}`" if source["subfolder"] else ""
    revision = f", revision `{source['revision']}`" if source["revision"] else ""
    trained = " and trained further with it" if description.get("training") else ""
    return (
        f"A {_NAMES.get(folder.compressor, folder.compressor)} model in MLX format, converted by "
        f"clara-mlx {description['clara_mlx']}{trained}."
        f"\n\n- checkpoint: {_link(source['checkpoint'])}{where}{revision}"
        f"\n- base: {_link(source['base'])}"
        f"\n- {folder.config.doc_max_length} tokens of text become {folder.config.memory_tokens} "
        f"memory tokens\n- adapters: {', '.join(folder.adapters)}"
        "\n- SHA-256 of the source's files, and the fingerprint of the result: `clara.json`"
    )


def _link(name: str) -> str:
    if is_hub_id(name):
        return f"[{name}](https://huggingface.co/{name})"
    return f"`{shown_name(name)}`, a local folder of its publisher"


def _contents(folder: ModelFolder) -> str:
    description = folder.description
    totals = read_json(folder.path / LAYOUT.index)["metadata"]
    bits = 8 * totals["total_size"] / totals["total_parameters"]
    scheme = Scheme.of(folder)
    how = f"quantised to {scheme}" if scheme else f"not quantised ({description['dtype']})"
    if scheme and scheme.recipe:
        how += f" (recipe {scheme.recipe})"
    size = sum((folder.path / name).stat().st_size for name in description["files"])
    return (
        f"- the base: {totals['total_parameters']:,} weights, {how}; {bits:.2f} bits per weight "
        f"with scales\n- adapters: {description['dtype']}; rows of the added tokens: as in the "
        f"checkpoint\n- all files: {size:,} bytes"
    )


def _comparison(folder: ModelFolder, verified: Sequence[str]) -> str:
    lines = [f"- {line}" for line in verified]
    if not verified:
        lines = ["- tensors and latents were not compared with the source before publishing"]
    errors = {
        kind: error
        for kind, error in folder.description.get("quantisation_error", {}).items()
        if error["rms"]
    }
    if errors:
        lines += [
            "",
            "| kind of tensor, by samples | worst rms error | largest error |",
            "|---|---|---|",
        ]
        lines += [f"| {k} | {e['rms']:.2%} | {e['largest']:.2%} |" for k, e in errors.items()]
    return "\n".join(lines)


def _licences(licence: Mapping[str, str | None]) -> str:
    lines = []
    for part, name in licence.items():
        said = licences.terms(name) if name else None
        lines.append(f"- {part}: {name or 'not stated'}" + (f" ({said})" if said else ""))
    return "\n".join(lines)


def _reproduction(folder: ModelFolder) -> str:
    description = folder.description
    if description.get("training"):
        return "It was trained with `clara-mlx train`; `clara.json` says from what, and how long."
    source = description["source"]
    command = ["clara-mlx", "convert", shown_name(source["checkpoint"])]
    for option in ("subfolder", "revision"):
        if source[option]:
            command += [f"--{option}", source[option]]
    command += ["--base", shown_name(source["base"]), "--to", "FOLDER", *_options(folder)]
    return f"```bash\n{join(command)}\n```"


def _options(folder: ModelFolder) -> list[str]:
    """The options of `clara-mlx convert` that gave this quantisation and dtype."""
    scheme = Scheme.of(folder)
    options = ["--dtype", str(folder.description["dtype"])]
    if scheme is None:
        return ["-q", "none", *options]
    default: dict[str, Any] = {"--q-mode": scheme.default.mode}
    if scheme.default.mode == "affine":
        default = {"--group-size": scheme.default.group_size}
        default |= {"--recipe": scheme.recipe} if scheme.recipe else {"-q": scheme.default.bits}
    return [*(str(part) for option in default.items() for part in option), *options]
