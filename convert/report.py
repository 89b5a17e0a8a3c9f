"""Conversions, comparisons and inspections as tables for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from clara_mlx.convert.quantise import Error
from clara_mlx.convert.source import Source
from clara_mlx.convert.verification import Verification
from clara_mlx.convert.write import Report
from clara_mlx.model.folder import ModelFolder


def conversion(report: Report) -> list[RenderableType]:
    """The closing tables of a conversion: parts, errors, licences."""
    parts = Table("part", "parameters", "bytes", title=str(report.folder), title_justify="left")
    for part, nbytes in report.bytes.items():
        parameters = report.parameters.get(part)
        parts.add_row(part, f"{parameters:,}" if parameters else "", f"{nbytes:,}")
    parts.add_section()
    parts.add_row("all", f"{sum(report.parameters.values()):,}", f"{sum(report.bytes.values()):,}")
    lines: list[RenderableType] = [
        parts,
        f"base: {report.bits_per_weight:.2f} bits per weight",
        f"adapters: {', '.join(report.adapters)}",
        *(
            f"licence of the {part}: {name or 'not stated'}"
            for part, name in report.licences.items()
        ),
    ]
    if any(error.rms for error in report.errors.values()):
        lines.insert(1, _errors(report.errors))
    if report.unquantised:
        lines.append(
            f"not quantised, because the groups do not divide them: {', '.join(report.unquantised)}"
        )
    lines.append(f"{report.seconds:.1f} s")
    return lines


def verification(result: Verification, *, errors: bool = True) -> list[RenderableType]:
    """What a comparison found; ``errors`` off where the conversion's own table stands above."""
    lines: list[RenderableType] = [
        f"{result.tensors} tensors compared, {result.identical} bit for bit what the source gives"
    ]
    if errors and any(error.rms for error in result.errors.values()):
        lines.append(_errors(result.errors))
    for adapter, cosines in result.cosines.items():
        lines.append(
            f"cosine to the float32 latents ({adapter}): worst {min(cosines):.6f} "
            f"of {len(cosines)} texts"
        )
    lines += [f"differs: {problem}" for problem in result.problems]
    lines.append("differences found" if result.problems else "the folder is its source's")
    return lines


def _errors(errors: dict[str, Error]) -> Table:
    table = Table("kind of tensor", "rms", "largest", title="worst error against the source")
    for kind, error in errors.items():
        table.add_row(kind, f"{error.rms:.2%}", f"{error.largest:.2%}")
    return table


def inspection(described: dict[str, Any]) -> list[RenderableType]:
    """What `inspect` found."""
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
        if key not in ("tensors", "path"):
            rest.add_row(key, _plain(value))
    return [tensors, rest]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not stated" if value is None else str(value)


def source_of(folder: str | Path, *, source: str | None, base: str | None) -> Source:
    """Open the source that a model folder says it was made from, or the places given instead."""
    recorded = ModelFolder(folder).description["source"]
    return Source(
        source or recorded["checkpoint"],
        base=base or recorded["base"],
        subfolder=None if source else recorded["subfolder"],
        revision=None if source else recorded["revision"],
    )
