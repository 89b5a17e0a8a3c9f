"""The project in which a command is run, and the memories that it looks at by default.

A memory's project is a folder in its metadata: the repository's root for what the command line
remembers, the folder that an agent works in for what the gateway and `remember --from` do. In a
repository, commands that look at memories leave out those of other projects, and say how many.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.cli.notes import note

if TYPE_CHECKING:
    from clara_mlx.memory import Memory

#: The key of metadata that has the project's folder.
PROJECT = "project"

Everywhere = Annotated[
    bool, typer.Option("--all", help="Look across all projects, not only this repository's.")
]
Project = Annotated[
    Path | None,
    typer.Option("--project", help="Look at this folder's project instead of the current one's."),
]


def find_root(folder: Path | None = None) -> str | None:
    """The root of the repository that a folder is in, by default the current one; None if none."""
    try:
        start = (folder or Path.cwd()).expanduser().resolve()
    except (OSError, RuntimeError):  # the current folder was deleted, for example
        return None
    roots = (one for one in (start, *start.parents) if os.path.lexists(one / ".git"))
    return next(map(str, roots), None)


@dataclass(frozen=True)
class Scope:
    """What a command looks at.

    Attributes:
        root: The project's folder; None: all projects.
    """

    root: str | None = None

    @classmethod
    def chosen(cls, everywhere: bool, project: Path | None) -> Scope:
        """The scope that options choose.

        Raises:
            BadParameter: Both were given.
        """
        if everywhere and project is not None:
            raise typer.BadParameter("leave out --all, or this", param_hint="--project")
        if project is not None:
            return cls(find_root(project) or str(project.expanduser().resolve()))
        return cls(None if everywhere else find_root())

    def holds(self, project: str) -> bool:
        """Whether a memory of that project is in this scope; folders below the root are."""
        return self.root is None or project == self.root or project.startswith(f"{self.root}/")

    def narrow(self, memory: Memory, where: dict[str, Any]) -> dict[str, Any]:
        """A filter, limited to this scope; says on standard error what that leaves out.

        Memories that belong to no project are in every scope. A filter that names handles, a
        session or a project is specific enough, and stays as it is.
        """
        if self.root is None or where.keys() & {"handle", "session", PROJECT}:
            return where
        inside = [one for one in memory.projects() if self.holds(one)]
        scoped = {**where, PROJECT: [*inside, None]}
        self._say(memory.count(where) - memory.count(scoped), "memories")
        return scoped

    def narrow_ledger(self, memory: Memory, where: dict[str, Any]) -> dict[str, Any]:
        """As `narrow`, for a filter of the ledger."""
        if self.root is None or where.keys() & {"session", PROJECT}:
            return where
        rows = memory.ledger.sums([PROJECT], where)
        scoped = {**where, PROJECT: [*self._inside(row.project for row in rows), ""]}
        left_out = [row for row in rows if row.project and not self.holds(row.project)]
        self._say(sum(row.requests for row in left_out), "requests")
        return scoped

    def _inside(self, projects: Iterable[str | None]) -> list[str]:
        return [one for one in projects if one and self.holds(one)]

    def _say(self, left_out: int, what: str) -> None:
        if left_out:
            note(f"(only {self.root}; {what} of other projects, which --all has: {left_out:,})")
