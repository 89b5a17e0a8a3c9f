"""The commands that capture.py runs, and the folders in which it runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sample_project import FILES, SNIPPETS

from clara_mlx.evaluate.sets import CaptureError


class Command(NamedTuple):
    """A command line, the folder to run it in, and its tool if the line alone does not tell."""

    tool: str
    where: str
    line: str


def prepare_commands(root: Path, repository: Path) -> Iterator[Command]:
    """Set folders up in ``root`` and yield the commands to run in them.

    Run each command before asking for the next one, because the sample project changes between.

    Args:
        root: An empty folder for a sample project, a clone of the repository and a link to the
            installed packages.
        repository: This project's checkout; without its ``.git`` there is no clone.

    Raises:
        CaptureError: A git command failed.
    """
    _write_project(root / "project")
    (root / "site-packages").symlink_to(sysconfig.get_path("purelib"))
    yield from (Command("", "project", line) for line in _PROJECT_COMMANDS)
    for name in SNIPPETS:
        yield Command("traceback", "project", f"python snippets/{name}.py")
    yield from _package_commands(root)
    yield from _history_commands(root / "project")
    if (repository / ".git").exists():
        _clone(repository, root / "clara-mlx")
        yield from (Command("", "clara-mlx", line) for line in REPOSITORY_COMMANDS)


def _write_project(project: Path) -> None:
    for name, text in FILES.items():
        file = project / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


_PROJECT_COMMANDS = (
    *(
        f"pytest -p no:cacheprovider {options}"
        for options in (
            "-q tests/test_store.py",
            "-q --tb=no",
            "-q tests/test_price.py",
            "tests/test_price.py --tb=short",
            "tests/test_report.py",
            "-v tests/test_store.py --tb=no",
            "-v tests/test_price.py tests/test_report.py --tb=line",
            "-q tests/test_import.py",
            "-q tests/test_slow.py --durations=2",
            "tests/test_store.py --tb=native",
            "-x -q tests/test_report.py --tb=short",
            "-rs tests/test_price.py --tb=no",
            "-q tests/test_store.py -k total",
        )
    ),
    *(
        f"python -m unittest {options}"
        for options in (
            "discover -s checks -t .",
            "-v checks.test_stock",
            "checks.test_stock.PriceTest",
            "checks.test_stock.StockTest",
            "-v checks.test_stock.StockTest.test_empty",
            "checks.test_parcels",
        )
    ),
    *(
        f"ruff {options}"
        for options in (
            "check --isolated inventory",
            "check --isolated --output-format concise inventory",
            "check --isolated inventory/price.py",
            "check --isolated --select E,F --output-format concise inventory/report.py",
            "check --isolated --select UP,B,E inventory/report.py",
            "check --isolated --select I,D inventory/store.py",
            "check --isolated --select ANN --output-format concise inventory/price.py",
            "format --isolated --check inventory tests snippets",
            "format --isolated --check inventory/price.py",
            "check --isolated snippets/syntax.py",
        )
    ),
    *(
        f"mypy --no-site-packages {options}"
        for options in (
            "inventory/price.py",
            "inventory/report.py",
            "--strict inventory/store.py",
            "inventory",
            "tests/test_import.py",
            "snippets/module.py snippets/count_words.py",
        )
    ),
    *(f"gcc -Wall -Wextra -o program {file}" for file in sorted(FILES) if file.endswith(".c")),
    "make",
    "make report",
    "make package",
    "cmake -S . -B cmake-build",
    "cargo check --manifest-path crate/Cargo.toml --lib",
    "cargo test --manifest-path crate/Cargo.toml --lib",
    "cargo test --manifest-path crate/Cargo.toml --lib adds_wrongly",
    "cargo check --manifest-path crate/Cargo.toml --bin moved",
    "cargo check --manifest-path crate/Cargo.toml --bin types",
    "cargo check --manifest-path crate/Cargo.toml --bin scope",
    "npm --prefix web test",
    "npm --prefix web run lint",
    "npm --prefix web run build",
    "npm --prefix web install left-pad",
    *(f"cat {file}" for file in sorted(FILES) if file.startswith("settings/")),
    "cat web/package.json",
    "cat crate/Cargo.toml",
    "grep -rn def inventory/store.py inventory/price.py",
    "grep -rn import inventory",
    "grep -rc def inventory",
    "grep -n class snippets/fields.py snippets/choice.py inventory/store.py",
    "rg -n def inventory",
    "ls -l",
    "ls -l inventory",
    "ls -lh native",
    "ls -R inventory tests",
    "du -a settings",
    "find tests settings -type f",
    "tree settings native",
    "tree inventory",
)

REPOSITORY_COMMANDS = (
    *(
        f"git log {options}"
        for options in (
            "-1",
            "-1 --stat",
            "-2",
            "--oneline -5",
            "--oneline -12",
            "-1 --format=fuller",
            "-1 --stat --format=medium HEAD~2",
            "-1 HEAD~3",
            "--oneline -8 -- README.md",
            "-3 --stat --format=medium -- pyproject.toml",
        )
    ),
    *(f"git diff --stat HEAD~{number} HEAD~{number - 1}" for number in range(1, 9)),
    *(f"git diff HEAD~{number} HEAD~{number - 1} -- README.md" for number in range(1, 6)),
    "git show --stat HEAD~4",
    "git status",
    "git status -sb",
    "head -n 50 pyproject.toml",
    "cat .github/workflows/test.yml",
    *(
        f"grep -rn {what}"
        for what in (
            "'^class .*Error' clara_mlx",
            "'^class ' clara_mlx/store",
            "'^def ' clara_mlx/model/config.py clara_mlx/model/chunking.py",
            "'raise CheckpointError' convert/pth.py convert/source.py",
            "'^    def ' clara_mlx/model/thread.py clara_mlx/model/lora.py",
            "'import mlx' clara_mlx/model convert",
            "'^[A-Z_]* = ' clara_mlx/store",
            "TODO pyproject.toml LICENSE README.md",
        )
    ),
    "grep -n '^def ' convert/files.py",
    "grep -n '^def ' convert/report.py",
    "grep -rc import clara_mlx/store",
    "grep -c def clara_mlx/model/clara.py clara_mlx/memory/memory.py clara_mlx/cli/app.py",
    "ls -l clara_mlx/store",
    "ls -l bench",
    "ls -lh tests/golden",
    "ls -R bench scripts",
    "du -a bench scripts",
    "find clara_mlx/store convert -name '*.py'",
    "tree bench scripts",
    "pytest -p no:cacheprovider tests/store/test_sketch.py",
    "pytest -p no:cacheprovider tests/model/test_config.py",
    "ruff check --isolated --select PLR,C901 --output-format concise clara_mlx/store",
    "ruff check --isolated --select D205,D401 clara_mlx/model/lora.py clara_mlx/machine.py",
)


def _package_commands(root: Path) -> Iterator[Command]:
    """Yield commands on installed packages; none prints more of their code than names."""
    packages = root / "site-packages"
    infos = sorted(packages.glob("*.dist-info"))
    for info in infos[::8]:
        yield Command("pip", ".", f"head -n 12 site-packages/{info.name}/METADATA")
        yield Command("pip", ".", f"python -m pip show {info.name.split('-')[0]}")
        yield Command("ls", ".", f"ls -l site-packages/{info.name}")
        yield Command("find", ".", f"find site-packages/{info.name}/ -type f")
    yield Command("pip", ".", "python -m pip list")
    sources = sorted(
        (file for file in packages.glob("[a-z]*/*.py") if 1_500 < file.stat().st_size < 6_000),
        key=lambda file: (file.stat().st_size, str(file)),
    )
    (root / "vendored").mkdir()
    for source in sources[:: max(len(sources) // 12, 1)][:12]:
        name = f"site-packages/{source.relative_to(packages)}"
        yield Command("ripgrep", ".", f"grep -c def {name} {name.rpartition('/')[0]}/__init__.py")
        yield Command(
            "ruff", ".", f"ruff check --isolated --select ANN,N,B --output-format concise {name}"
        )
        # Outside site-packages, because mypy checks nothing inside.
        shutil.copy(source, root / "vendored" / source.name)
        options = "--strict --no-site-packages --follow-imports=skip"
        yield Command("mypy", ".", f"mypy {options} vendored/{source.name}")
    for config in sorted(packages.glob("*.dist-info/**/*.json"))[:8]:
        yield Command("json", ".", f"cat site-packages/{config.relative_to(packages)}")


_COMMITS = (
    ("Ada Keller", "2026-02-03T09:12:41+0100", "Add the store", ["inventory", "tests"]),
    ("Jon Ferreira", "2026-02-05T17:40:02+0100", "Add checks of prices", ["checks"]),
    ("Ada Keller", "2026-02-11T08:03:59+0100", "Settings for the web service", ["settings", "web"]),
    ("Mira Osei", "2026-02-14T21:26:30+0000", "Port stock counting to Rust", ["crate"]),
)


def _history_commands(project: Path) -> Iterator[Command]:
    """Make the sample project a repository, change it step by step, and yield git commands."""

    def git(*words: str, **environment: str) -> None:
        done = subprocess.run(
            ["git", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false", *words],
            cwd=project,
            env={"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CaptureError(f"git {words[0]} in the sample project: {done.stderr.strip()}")

    def edit(name: str, old: str, new: str) -> None:
        file = project / name
        file.write_text(file.read_text().replace(old, new))

    if not shutil.which("git"):
        return
    git("init", "--quiet")
    (project / ".gitignore").write_text("crate/target\ncmake-build\nprogram\n__pycache__\n*.o\n")
    for name, date, subject, added in _COMMITS:
        git("add", *added)
        mail = f"{name.split()[0].lower()}@example.org"
        who = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", name), ("EMAIL", mail), ("DATE", date))
        }
        git("commit", "--quiet", "-m", subject, **who)
    changes = (
        ("settings/app.env", "STOCK_PORT=8443", "STOCK_PORT=9443"),
        ("inventory/price.py", 'text.split(".")', 'text.split(",")'),
        ("settings/app.toml", "workers = 6", "workers = 12"),
        ("settings/app.yaml", "  level: warning", "  level: debug"),
        ("crate/src/lib.rs", "let spare = 3;", "let spare = 7;"),
        ("tests/test_report.py", "== 3", "== 4"),
    )
    logs = (
        "log -1",
        "log",
        "log --oneline",
        "log -1 --stat",
        "log -1 --stat HEAD~1",
        "show --stat HEAD~2",
        "log -1 --format=fuller HEAD~3",
    )
    yield from (Command("git-log", "project", f"git {log}") for log in logs)
    for name, old, new in changes:
        edit(name, old, new)
        yield Command("git-diff", "project", f"git diff {name}")
        yield Command("git-status", "project", "git status")
        yield Command("git-status", "project", "git status -sb")
        yield Command("git-diff", "project", "git diff --stat")
        git("add", name)
        git("commit", "--quiet", "-m", f"Change {name}", **who)
        yield Command("git-log", "project", "git log -1 --stat")
        yield Command("git-log", "project", "git show")
    git("mv", "inventory/report.py", "inventory/summary.py")
    git("checkout", "--quiet", "-b", "rename-report")
    yield Command("git-status", "project", "git status")
    yield Command("git-status", "project", "git status --short")
    git("rm", "--quiet", "checks/test_stock.py")
    yield Command("git-status", "project", "git status")


def _clone(repository: Path, clone: Path) -> None:
    """Clone the repository with a mailmap that gives its authors neutral names."""
    done = subprocess.run(
        ["git", "clone", "--quiet", "--local", str(repository), str(clone)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CaptureError(f"{repository} can't be cloned: {done.stderr.strip()}")
    mails = subprocess.run(
        ["git", "log", "--format=%ae%n%ce"], cwd=clone, capture_output=True, text=True, check=True
    )
    known = dict.fromkeys(mails.stdout.split())
    (clone / ".git" / "authors").write_text(
        "".join(
            f"Contributor {number} <contributor{number}@example.org> <{mail}>\n"
            for number, mail in enumerate(known, 1)
        )
    )
    subprocess.run(
        ["git", "config", "mailmap.file", str(clone / ".git" / "authors")], cwd=clone, check=True
    )
