"""The tables of what lies in a state folder, as the handbooks have them, held against a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
PAGE = {"hospital": "operators.md", "coordinator": "coordinator.md"}
Side = Literal["hospital", "coordinator"]


@dataclass(frozen=True)
class Row:
    """One line of a table. patterns: paths below the folder; one that ends in "/" stands for all below it."""

    patterns: tuple[str, ...]
    secret: bool
    backup: str

    def covers(self, path: str) -> bool:
        plain = re.sub(r"-(wal|shm)$", "", path)
        plain = re.sub(r"(^|/)\.([^/]+)\.[0-9a-f]{8}$", r"\1\2", plain)  # a file that is being written just now
        return any(plain.startswith(p) if p.endswith("/") else fnmatchcase(plain, p) for p in self.patterns)


def rows(side: Side) -> list[Row]:
    """The table of one side. RUN and RECIPE stand for any name."""
    text = (ROOT / "docs" / PAGE[side]).read_text().partition(f"| {side}: `cameo-")[2].partition("\n\n")[0]
    found = []
    for line in text.splitlines()[2:]:
        names, _, secret, backup = (cell.strip() for cell in line.split("|")[1:-1])
        patterns = [
            re.sub(r"HOME/|RUN/|RECIPE", lambda m: "*" if m[0] == "RECIPE" else "", p)
            for p in re.findall("`([^`]+)`", names)
        ]
        found.append(Row(tuple(patterns), secret == "yes", backup))
    return found


def undocumented(folder: Path, side: Side) -> list[str]:
    """Files of a state folder that its table does not name."""
    table = rows(side)
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in paths if not any(row.covers(path) for row in table))


def exposed(folder: Path, side: Side) -> list[str]:
    """Files that the table calls secret and others could reach: neither they nor a folder above keeps others out."""
    table = [row for row in rows(side) if row.secret]
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        shut = any(not one.stat().st_mode & 0o077 for one in (path, *path.parents) if one.is_relative_to(folder))
        if not shut and any(row.covers(path.relative_to(folder).as_posix()) for row in table):
            found.append(str(path.relative_to(folder)))
    return found
