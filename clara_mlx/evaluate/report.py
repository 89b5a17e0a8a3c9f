"""The report on disk: a JSON with every number, and one HTML page that needs nothing else."""

from __future__ import annotations

import json
import os
from html import escape
from pathlib import Path
from typing import Any

from clara_mlx.errors import ClaraError
from clara_mlx.evaluate import plots, tables
from clara_mlx.evaluate.run import FORMAT

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }
table { border-collapse: collapse; margin: 1.5em 0; font-size: 13px; }
caption { text-align: left; font-weight: 600; padding-bottom: .4em; }
th, td { border-bottom: 1px solid #ddd; padding: .25em .8em .25em 0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5em 0; overflow-x: auto; }
svg { max-width: 100%; height: auto; }
pre { background: #f5f5f5; padding: 1em; overflow-x: auto; font-size: 12px; }
dt { font-weight: 600; }
"""


def write(report: dict[str, Any], folder: Path, *, html: bool) -> list[Path]:
    """Write ``report.json``, and with ``html`` also ``report.html``; returns what was written.

    Each file is complete or not there.
    """
    files = {folder / "report.json": json.dumps(report, indent=1) + "\n"}
    if html:
        files[folder / "report.html"] = page(report)
    for file, content in files.items():
        partial = file.with_name(f".{file.name}.partial")
        partial.write_text(content, encoding="utf-8")
        os.replace(partial, file)
    return list(files)


def read(file: Path) -> dict[str, Any]:
    """A report that `write` wrote.

    Raises:
        ClaraError: the file can't be read, or is no report of this format or an older one.
    """
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClaraError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ClaraError(f"{file}: not a report: {error}") from error
    written = report.get("format") if isinstance(report, dict) else None
    if type(written) is not int or "retention" not in report:
        raise ClaraError(f"{file}: not a report; `clara-mlx evaluate` writes one")
    if written > FORMAT:
        raise ClaraError(
            f"{file}: format {written}, but this clara-mlx reads up to {FORMAT}; update it"
        )
    return dict(report)


def page(report: dict[str, Any]) -> str:
    """The whole report as one HTML page.

    Raises:
        ClaraError: matplotlib is not installed.
    """
    plots.check()
    main = list(tables.grids(report))
    title = f"What {report['models'][0]['name']} keeps"
    parts = [f"<h1>{escape(title)}</h1>", _about(report), _figure(plots.retention(report))]
    parts += [grid.html() for grid in main]
    if report["memory"]:
        parts.append(_figure(plots.recall(report)))
        rules = report["memory"]["forms"] | {"relevant": report["memory"]["relevant"]}
        parts.append(_definitions(rules))
    for name, described in report["sets"].items():
        parts.append(
            f"<h2>{escape(name)}</h2><p>{escape(described['what'])}: "
            f"{described['documents']:,} documents, {described['probes']:,} probes.</p>"
        )
        parts.append(_figure(plots.breakdown(report, name)))
        parts += [tables.breakdown(report, name, by).html() for by in tables.DIMENSIONS]
    parts.append("<h2>How it was measured</h2>")
    parts.append(_definitions(report["methods"] | report["definitions"]))
    provenance = {
        name: report[name]
        for name in ("machine", "libraries", "settings", "models", "sets", "seconds")
    }
    parts.append(f"<pre>{escape(json.dumps(provenance, indent=1))}</pre>")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _about(report: dict[str, Any]) -> str:
    model, machine = report["models"][0], report["machine"]
    return (
        f"<p>{escape(model['name'])}: chunks of {model['doc_max_length']} tokens become "
        f"{model['memory_tokens']} memory tokens. Measured on {escape(machine['date'])} with "
        f"clara-mlx {escape(report['clara_mlx'])} on {escape(machine['processor'])} "
        f"({escape(machine['device'])}), seed {report['settings']['seed']}, greedy decoding. "
        "Every method but asking a memory reads the chunk that holds the evidence.</p>"
    )


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>"


def _definitions(terms: dict[str, str]) -> str:
    items = (f"<dt>{escape(term)}</dt><dd>{escape(what)}</dd>" for term, what in terms.items())
    return f"<dl>{''.join(items)}</dl>"
