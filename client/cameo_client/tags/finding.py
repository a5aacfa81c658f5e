"""What the checks of a rule pack report: one finding, with file, line, code and remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cameo_protocol.errors import OperatorError

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One remark about a pack. An "error" stops the pack from being used, the others do not.

    line: 1-based, 0 when the whole file is meant. code: stable, listed in docs/tags.md. do: the remedy.
    """

    file: str
    line: int
    code: str
    what: str
    do: str
    level: Level = "error"
    rule: str = ""

    def text(self) -> str:
        """The finding as one printable line, in the shape editors can jump to."""
        where = f" [{self.rule}]" if self.rule else ""
        return f"{self.file}:{self.line}: {self.level} {self.code}{where}: {self.what}. {self.do}."

    def as_dict(self) -> dict[str, str | int]:
        """The finding for `--json`."""
        return {
            "file": self.file,
            "line": self.line,
            "level": self.level,
            "code": self.code,
            "rule": self.rule,
            "what": self.what,
            "do": self.do,
        }


class Fault(Exception):
    """A refusal inside one text of a pack, before file and line are known."""

    def __init__(self, code: str, what: str, do: str) -> None:
        super().__init__(f"{code}: {what}")
        self.code = code
        self.what = what
        self.do = do


def errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Only the findings that stop a pack."""
    return tuple(finding for finding in findings if finding.level == "error")


def refuse(findings: Iterable[Finding]) -> None:
    """Raise `OperatorError("tag-pack-invalid")` naming the first error and how many there are; no error: nothing."""
    found = errors(findings)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise OperatorError(
            "tag-pack-invalid", what=found[0].text() + more, do=f"run: cameo-node tags lint {found[0].file}"
        )
