"""The heads of the other hospitals' ledgers: remembered from what went round, and said again in every admission.

So a coordinator that lost its own memory hears from the others how far each ledger had come.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cameo_client.home import write_file
from cameo_protocol.heads import newer
from cameo_protocol.plan import RunPlan


class PeerHeads:
    """A small file of signed heads; path None: in memory only. One that is lost or damaged begins anew."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[bytes, bytes] = {}
        if path is not None and path.exists():
            try:
                rows = json.loads(path.read_bytes())
                self._known = newer({}, {bytes.fromhex(k): bytes.fromhex(v) for k, v in rows.items()})
            except (OSError, ValueError, AttributeError, TypeError):
                self._known = {}  # nothing of ours: the others' heads come round again with the next run

    def of(self, plan: RunPlan) -> dict[int, bytes]:
        """Shamir index -> signed head, of the hospitals of a plan."""
        found = {site.index: self._known.get(bytes.fromhex(site.identity)) for site in plan.cohort.sites}
        return {index: head for index, head in found.items() if head is not None}

    def remember(self, plan: RunPlan, heads: Mapping[int, bytes]) -> None:
        """Keep what is news, on disk; heads that no hospital of the plan signed are left out."""
        keys = {site.index: bytes.fromhex(site.identity) for site in plan.cohort.sites}
        news = newer(self._known, {keys[index]: head for index, head in heads.items() if index in keys})
        if not news:
            return
        self._known |= news
        if self._path is not None:
            rows = {key.hex(): head.hex() for key, head in sorted(self._known.items())}
            write_file(self._path, json.dumps(rows, indent=1).encode())
