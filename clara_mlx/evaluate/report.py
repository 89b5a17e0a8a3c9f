"""The report on disk: a JSON file with every number, and one HTML page that needs nothing else."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clara_mlx.errors import ClaraError, reason
from clara_mlx.evaluate import plots, tables, verdicts
from clara_mlx.evaluate.run import FORMAT
from clara_mlx.store.atomic import write_text

# Control characters except tab and line feed, and surrogates, which no HTML file can contain.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def require_page_libraries(otherwise: str) -> None:
    """Find out before a long run whether an HTML page can be made.

    Args:
        otherwise: How to do without, for the error.

    Raises:
        ClaraError: matplotlib or jinja2 is not installed.
    """
    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise ClaraError(
            f"the HTML report needs {' and '.join(missing)}: pip install 'clara-mlx[evaluate]', "
            f"or {otherwise}"
        )


def write(report: dict[str, Any], folder: Path, *, html: bool) -> list[Path]:
    """Write ``report.json`` and, with ``html``, ``report.html``; returns the files written."""
    files = [folder / "report.json"]
    write_text(files[0], json.dumps(report, indent=1) + "\n")
    if html:
        files.append(folder / "report.html")
        write_text(files[1], page(report))
    return files


def read(file: Path) -> dict[str, Any]:
    """Read a report that `write` wrote.

    Raises:
        ClaraError: The file can't be read, is not a report, or has a newer format than this one.
    """
    return read_json(file, "retention", FORMAT)


def read_json(file: Path, part: str, newest: int) -> dict[str, Any]:
    """Read a JSON file with a ``format`` and the part that makes it a report of one kind.

    Raises:
        ClaraError: The file can't be read, is not such a report, or has a format above ``newest``.
    """
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClaraError(f"{file}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise ClaraError(f"{file}: not a report: {error}") from error
    written = report.get("format") if isinstance(report, dict) else None
    if type(written) is not int or part not in report:
        raise ClaraError(f"{file}: not a report; `clara-mlx evaluate` writes one")
    if written > newest:
        raise ClaraError(
            f"{file}: format {written}, but this clara-mlx reads up to {newest}; update it"
        )
    return dict(report)


def page(report: dict[str, Any]) -> str:
    """The whole report as one HTML page, the verdicts first; every text in it is escaped."""
    from markupsafe import Markup

    report = printable(report)
    parts = ("machine", "libraries", "settings", "models", "sets", "seconds")
    return render(
        "report.html.jinja",
        report=report,
        verdicts=verdicts.of_evaluation(report),
        grids=list(tables.main_grids(report)),
        retention_plot=Markup(plots.retention(report)),
        recall_plot=Markup(plots.recall(report)) if report["memory"] else None,
        breakdowns={
            name: (
                Markup(plots.breakdown(report, name)),
                [tables.breakdown_grid(report, name, by) for by in tables.DIMENSIONS],
            )
            for name in report["sets"]
        },
        provenance=json.dumps({part: report[part] for part in parts}, indent=1),
    )


def to_markdown(report: dict[str, Any]) -> str:
    """The main tables, what they were measured with, and the verdicts, for a README."""
    machine, model = report["machine"], report["models"][0]
    source = (
        f"clara-mlx {report['clara_mlx']}, model {model['sha256'][:12]}, seed "
        f"{report['settings']['seed']}, {machine['device']} of {machine['processor']}, "
        f"{machine['date']}."
    )
    grids = (grid.to_markdown() for grid in tables.main_grids(report))
    verdict = verdicts.to_markdown(verdicts.of_evaluation(report))
    return "\n\n".join([*grids, source, verdict]) + "\n"


def render(template: str, *, folder: Path | None = None, **values: Any) -> str:
    """A template with its values, which it escapes unless they are markup.

    It is looked for in ``folder``, if one is given, and then in this room's, which has the parts.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([*filter(None, [folder]), Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def printable(value: Any) -> Any:
    """A part of a report in which every character can be written to a page."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable(item) for item in value]
    return value
