"""The heads of hospitals' ledgers that this coordinator has been told, kept over runs and said back to everybody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cameo_protocol.errors import OperatorError, Reject
from cameo_protocol.heads import LedgerHead, newer
from cameo_protocol.plan import RunPlan
from cameo_server.home import CoordinatorHome, write_file
from cameo_server.membership import roster


class Heads:
    """Of one plan's hospitals. path: shared by all runs; None: kept in memory only."""

    def __init__(self, plan: RunPlan, path: Path | None = None) -> None:
        self._identities = {site.index: bytes.fromhex(site.identity) for site in plan.cohort.sites}
        self._path = path
        self._known = self._read()

    def all(self) -> dict[int, bytes]:
        """Shamir index -> the newest signed head; hospitals that never told one are left out."""
        return {index: self._known[key] for index, key in self._identities.items() if key in self._known}

    def cut(self, index: int, told: bytes) -> bool:
        """Whether a hospital now tells an audit log that has lost what it told before. Ask before `take`."""
        key = self._identities[index]
        before = self._known.get(key)
        try:
            return before is not None and LedgerHead.open(told, key).cuts(LedgerHead.open(before, key))
        except Reject:
            return False  # no head at all: `take` leaves it out

    def take(self, told: Mapping[int, bytes]) -> None:
        """Keep what is news of these signed heads, on disk; what no hospital of the plan signed is left out."""
        by_key = {self._identities[index]: head for index, head in told.items() if index in self._identities}
        if not newer(self._known, by_key):
            return
        self._known |= newer(self._known, self._read())  # another run may have written since
        self._known |= newer(self._known, by_key)
        if self._path is not None:
            rows = {key.hex(): head.hex() for key, head in sorted(self._known.items())}
            write_file(self._path, json.dumps(rows, indent=1).encode())

    def _read(self) -> dict[bytes, bytes]:
        return {} if self._path is None else _load(self._path)


def read_heads(home: CoordinatorHome) -> list[dict[str, str]]:
    """The newest head of each hospital of the roster that has told one: site, and its audit log's hash (64 hex)."""
    known = _load(home.heads)
    rows = []
    for site in roster(home):
        key = bytes.fromhex(site.identity)
        if key in known:
            rows.append({"site": site.name, "audit": LedgerHead.open(known[key], key).audit.hex()})
    return rows


def _load(path: Path) -> dict[bytes, bytes]:
    if not path.exists():
        return {}
    try:
        rows = {bytes.fromhex(k): bytes.fromhex(v) for k, v in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        raise OperatorError(
            "heads-unreadable",
            what=f"{path} cannot be read",
            do="restore it from a backup, or remove it: hospitals tell each other's heads again",
        ) from None
    return newer({}, rows)
