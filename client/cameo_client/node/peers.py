"""The heads of the other hospitals' ledgers: remembered from what went round, and said again in every admission.

So a coordinator that lost its own memory hears from the others how far each ledger had come, and one that says an old
head again, or none, is found out: the hospital whose ledger was put back is not the only one that looks.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from cameo_client.home import write_file
from cameo_protocol.errors import Reject
from cameo_protocol.heads import Memory, Rows, is_stale, newer, read_memory, rows_of, write_memory
from cameo_protocol.plan import RunPlan


class PeerHeads:
    """A small file of signed heads; path None: in memory only. One that is lost or damaged begins anew."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: Memory = {}
        if path is not None and path.exists():
            try:
                self._known = read_memory(path.read_bytes())
            except (OSError, ValueError):
                self._known = {}  # nothing of ours: the others' heads come round again with the next run

    def of(self, identities: Container[bytes]) -> Rows:
        """What is remembered of these hospitals."""
        return rows_of(self._known, identities)

    def check(self, plan: RunPlan, index: int, heads: Mapping[int, bytes]) -> None:
        """Refuse ("peer-head-stale") a round's heads that leave out, or put back, what this hospital remembers.

        index: its own, which is not looked at. heads: by Shamir index. Each admission tells the coordinator all that
        is remembered here, so that one that lost its memory knows it before it calls a round.
        """
        for site in plan.cohort.sites:
            identity = bytes.fromhex(site.identity)
            if site.index == index:
                continue
            told = heads.get(site.index)
            if is_stale(self._known, identity, told) if told is not None else bool(self.of({identity})):
                what = f"the head of {site.name}'s ledger is older than one that it has signed, or is left out"
                raise Reject("peer-head-stale", what=what)

    def remember(self, plan: RunPlan, heads: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep what is news of these (identity, head), on disk; what no hospital of the plan signed is left out."""
        keys = {bytes.fromhex(site.identity) for site in plan.cohort.sites}
        news = newer(self._known, (row for row in heads if row[0] in keys))
        if not news:
            return
        self._known |= news
        if self._path is not None:
            write_file(self._path, write_memory(self._known))
