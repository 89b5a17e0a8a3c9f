"""Measures with recorded material: real outputs with questions, and agents' recorded runs.

    python bench/real.py --outputs FILE --trajectories FOLDER [--compymac CHECKOUT]
    python bench/real.py --outputs FILE --compressor MODEL bm25 extractive --output FILE

The formats, and what each figure counts, are described in `real_questions.py` and
`real_trajectories.py`. The methods are everything, truncation, masking (the newest 10 outputs stay
whole), CompyMac's manager, and ours. There is no model: tokens are estimated at four characters.

With --compressor, the outputs' questions are also put to compressors (model folders, or names such
as bm25), as `clara-mlx evaluate --compressor` does.

Results go to bench/results/real.json, and the plots beside it: facts in view against tokens sent,
and facts kept against the compressors' rates.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import real_questions
from real_methods import METHODS
from real_plot import draw
from real_trajectories import CLASSES, Figures, read_runs, replay
from replay import commit_of

from clara_mlx import machine
from clara_mlx.context import Budget
from clara_mlx.evaluate import comparison, comparison_report, plots
from clara_mlx.version import __version__

RESULTS = Path(__file__).parent / "results"

# The figures of the table.
_COLUMNS = ("sent", "prefill", "prefill_whole", "present", "asked", "one_call_away")


def main() -> None:
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--outputs", type=Path, metavar="FILE", help="outputs with questions")
    parser.add_argument("--trajectories", type=Path, metavar="FOLDER", help="runs with needs.json")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these runs")
    parser.add_argument("--window", type=int, nargs="+", default=[32_768, 16_384])
    parser.add_argument("--boundary", type=int, help="send larger new outputs as excerpts")
    parser.add_argument("--cache", choices=("trimmable", "whole"), default="trimmable")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--compymac", type=Path, default=os.environ.get("CLARA_MLX_COMPYMAC"))
    parser.add_argument("--compressor", nargs="+", default=[], metavar="NAME", help="compare them")
    parser.add_argument("--mechanics", nargs="+", default=[], metavar="NAME", help="untrained ones")
    parser.add_argument("--longest", type=int, help="characters of an output for --compressor")
    parser.add_argument("--output", type=Path, default=RESULTS / "real.json")
    parser.add_argument("--no-plot", action="store_true", help="leave the plot out")
    options = parser.parse_args()
    if not options.outputs and not options.trajectories:
        parser.error("name what to measure: --outputs FILE, --trajectories FOLDER, or both")
    if (options.compressor or options.mechanics) and not options.outputs:
        parser.error("--compressor needs --outputs FILE")
    if "compymac" in options.methods and (why := why_no_compymac(options.compymac)):
        print(f"CompyMac is left out: {why}", file=sys.stderr)
        options.methods.remove("compymac")
    results = measure(options)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))
    if options.trajectories and not options.no_plot:
        print(draw(results["trajectories"], options.output.with_suffix(".png")))
    if "compressors" in results and not options.no_plot:
        plot = options.output.with_suffix(".svg")
        plot.write_text(plots.retention_by_rate(results["compressors"]), encoding="utf-8")
        print(f"plot: {plot}")


def why_no_compymac(checkout: Path | None) -> str | None:
    """Why CompyMac's manager can't be used; None if it can."""
    if checkout is None:
        return "--compymac names no checkout (scripts/compymac makes one)"
    sys.path.insert(0, str(checkout / "src"))
    try:
        import compymac.memory  # noqa: F401
    except ImportError as error:
        return f"{error}, which is looked for in {checkout} and here"
    return None


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what was asked for."""
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "load": os.getloadavg(),
        "clara-mlx": __version__,
        "compymac": commit_of(options.compymac if "compymac" in options.methods else None),
    }
    with tempfile.TemporaryDirectory() as folder:
        if options.outputs:
            results["outputs"] = real_questions.measure(
                real_questions.read_outputs(options.outputs),
                Path(folder) / "outputs.db",
                _summariser() if "compymac" in options.methods else None,
                _progress,
            )
        if options.compressor or options.mechanics:
            results["compressors"] = comparison.compare(
                options.compressor,
                [],
                comparison.Extent(options.outputs, longest=options.longest),
                mechanics=options.mechanics,
                progress=lambda done, total, what="", /: _progress(what),
            )
        if options.trajectories:
            results["trajectories"] = {
                str(window): {
                    method: measure_method(options, method, window, Path(folder))
                    for method in options.methods
                }
                for window in options.window
            }
    _progress("")
    return results


def measure_method(
    options: argparse.Namespace, method: str, window: int, folder: Path
) -> dict[str, Any]:
    """Send every run through a method."""
    figures = Figures()
    budget = Budget(window, window // 8, boundary=options.boundary, cache=options.cache)
    begun = time.process_time()
    for run in read_runs(options.trajectories, options.only):
        _progress(f"window {window}, {method}: {run.name}")
        path = Path(tempfile.mkdtemp(dir=folder)) / "memory.db"
        made = METHODS[method](budget, path, options.compymac)
        try:
            replay(run, made, figures)
        finally:
            made.close()
    return {**figures.summary(), "processor_seconds": round(time.process_time() - begun, 1)}


def _summariser() -> Callable[[str, str], str]:
    """CompyMac's summariser of tools' outputs."""
    from compymac.memory import ToolOutputSummarizer

    summarise: Callable[[str, str], str] = ToolOutputSummarizer().summarize
    return summarise


def _progress(what: str) -> None:
    """Show what is being done, on one line of a terminal, or each on a line of its own."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)
    elif what:
        print(what, file=sys.stderr, flush=True)


def table(results: dict[str, Any]) -> str:
    """The figures as tables in Markdown."""
    parts = []
    for window, methods in results.get("trajectories", {}).items():
        any_method = next(iter(methods.values()))
        rows = [
            [
                name,
                *(each[what] for what in _COLUMNS),
                *(each["by_class"].get(one, {}).get("one_call_away", "") for one in CLASSES),
                each["alternating"],
                len(each["errors"]),
                f"{each['ms_p50']} / {each['ms_p95']}",
            ]
            for name, each in methods.items()
        ]
        titles = ["method", *(column.replace("_", " ") for column in _COLUMNS), *CLASSES]
        parts.append(
            f"Window {window}, {any_method['needs']} needs, in percent:\n\n"
            + _markdown([*titles, "alternating", "errors", "ms p50 / p95"], rows)
        )
        kinds = sorted({kind for each in methods.values() for kind in each["by_kind"]})
        rows = [
            [name, *(each["by_kind"].get(kind, {}).get("one_call_away", "") for kind in kinds)]
            for name, each in methods.items()
        ]
        parts.append("One call away, by kind:\n\n" + _markdown(["method", *kinds], rows))
    if outputs := results.get("outputs"):
        names = [name for name in (*real_questions.MEASURES, "summary") if name in outputs]
        parts.append(
            f"{outputs['questions']} questions about {outputs['outputs']} outputs, in percent:\n\n"
            + _markdown(names, [[outputs[name] for name in names]])
        )
    if compressors := results.get("compressors"):
        parts.append(comparison_report.to_markdown(compressors))
    return "\n\n".join(parts)


def _markdown(titles: list[str], rows: list[list[Any]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    main()
