"""Tables for people, from the results of a conversion, a verification or an inspection."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import indent
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from clara_mlx.convert.conversion import Conversion
from clara_mlx.convert.quantise import Error
from clara_mlx.convert.verification import Verification
from clara_mlx.model.schemes import Scheme


def conversion(result: Conversion, *, errors: bool = True) -> list[RenderableType]:
    """Tables and lines on a conversion: parts, errors, licences.

    Args:
        result: What `convert` returned.
        errors: Show the table of errors, which are those of samples; not needed before that of
            `verification`.
    """
    parts = Table("part", "parameters", "bytes", title=str(result.folder), title_justify="left")
    for part, nbytes in result.bytes.items():
        parameters = result.parameters.get(part)
        parts.add_row(part, f"{parameters:,}" if parameters else "", f"{nbytes:,}")
    parts.add_section()
    parts.add_row("all", f"{sum(result.parameters.values()):,}", f"{sum(result.bytes.values()):,}")
    lines: list[RenderableType] = [
        parts,
        f"quantised parts: {result.bits_per_weight:.2f} bits per weight",
        *([f"adapters: {', '.join(result.adapters)}"] if result.adapters else []),
        *(
            f"licence of the {part}: {name or 'not stated'}"
            for part, name in result.licences.items()
        ),
    ]
    if errors and any(error.rms for error in result.errors.values()):
        title = "worst error against the source, by samples (--verify compares all)"
        lines.insert(1, _errors(title, result.errors, result.formats))
    if result.unquantised:
        lines.append(
            "not quantised, because their rows can't be divided into groups: "
            f"{', '.join(result.unquantised)}"
        )
    lines.append(f"{result.seconds:.1f} s")
    return lines


def verification(
    result: Verification,
    *,
    errors: bool = True,
    formats: Mapping[str, list[str]] | None = None,
) -> list[RenderableType]:
    """Lines and a table on a comparison.

    Args:
        result: What `verify` returned.
        errors: Show the table of errors.
        formats: How each kind of tensor is stored, for that table.
    """
    lines: list[RenderableType] = [
        f"{result.tensors} tensors compared, {result.identical} identical bit for bit"
    ]
    if errors and any(error.rms for error in result.errors.values()):
        lines.append(_errors("worst error against the source", result.errors, formats or {}))
    for adapter, cosines in result.cosines.items():
        lines.append(
            f"cosine to the float32 latents ({adapter}): {min(cosines):.6f} "
            f"for the worst of {len(cosines)} texts"
        )
    if result.next_tokens:
        tokens = result.next_tokens
        lines.append(
            f"the decoder's next token is the source's at {tokens.same} of {tokens.positions} "
            f"positions (mean divergence {tokens.kl:.2g} nats, mean shift of a logit "
            f"{tokens.shift:.2g})"
        )
    lines += [f"differs: {problem}" for problem in result.problems]
    lines.append("differences found" if result.problems else "the folder agrees with its source")
    return lines


def _errors(title: str, errors: dict[str, Error], formats: Mapping[str, list[str]]) -> Table:
    columns = ("kind of tensor", "rms", "largest", *(["stored as"] if formats else []))
    table = Table(*columns, title=title)
    for kind, error in errors.items():
        stored_as = [" or ".join(formats.get(kind, []))] if formats else []
        table.add_row(kind, f"{error.rms:.2%}", f"{error.largest:.2%}", *stored_as)
    return table


def inspection(described: dict[str, Any]) -> list[RenderableType]:
    """Tables on a model folder or a checkpoint, as `inspect` describes it."""
    tensors = Table(
        "part", "tensors", "bytes", "dtypes", title=described["path"], title_justify="left"
    )
    for part, summary in described["tensors"].items():
        dtypes = ", ".join(f"{count} {name}" for name, count in summary["dtypes"].items())
        extra = summary.get("also holds")
        if extra:
            dtypes += f" (and copies of {', '.join(extra)})"
        tensors.add_row(part, str(summary["tensors"]), f"{summary['bytes']:,}", dtypes)
    rest = Table("", "", show_header=False, box=None)
    for key, value in described.items():
        if key == "quantization" and value:  # which may name every matrix
            value = str(Scheme.read(value))
        if key not in ("tensors", "path"):
            rest.add_row(key, _plain(value))
    return [tensors, rest]


def _after_key(value: Any) -> str:
    text = _plain(value)
    return "\n" + indent(text, "  ") if isinstance(value, dict) else f" {text}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}:{_after_key(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not stated" if value is None else str(value)
