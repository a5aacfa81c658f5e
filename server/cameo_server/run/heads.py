"""The heads of hospitals' ledgers that this coordinator has been told, kept over runs and said back to everybody."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cameo_protocol.errors import OperatorError, Reject
from cameo_protocol.heads import LedgerHead, Memory, Rows, latest, newer, read_memory, rows_of, write_memory
from cameo_protocol.plan import RunPlan
from cameo_server.home import CoordinatorHome, write_file
from cameo_server.membership import roster


class Heads:
    """Of one plan's hospitals. path: shared by all runs; None: kept in memory only.

    former: site name -> identities (hex) under which a hospital of that name was a member before.
    """

    def __init__(
        self, plan: RunPlan, path: Path | None = None, former: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        self._identities = {site.index: bytes.fromhex(site.identity) for site in plan.cohort.sites}
        names = {site.name: site.index for site in plan.cohort.sites}
        self.former = {
            names[name]: tuple(bytes.fromhex(key) for key in keys)
            for name, keys in (former or {}).items()
            if name in names
        }
        self._path = path
        self._serving: dict[int, bytes] = {}
        self._known = self._read()

    def all(self) -> dict[int, bytes]:
        """Shamir index -> the newest signed head of the data set that the hospital serves in this run.

        Where it has told none in this run: the head that it told last. Hospitals that never told one are left out.
        """
        self._refresh()
        found = {}
        for index, identity in self._identities.items():
            dataset = self._serving.get(index, b"")
            head = self._known.get((identity, dataset)) or latest(self._known, identity)
            if head is not None:
                found[index] = head
        return found

    def rows(self) -> Rows:
        """Everything that the plan's hospitals, under their former identities too, have told of any data set."""
        self._refresh()
        return rows_of(self._known, self._wanted())

    def cut(self, index: int, told: bytes) -> bool:
        """Whether a hospital now tells an audit log that has lost what it told before, under former keys too.

        Ask before `take`.
        """
        keys = (self._identities[index], *self.former.get(index, ()))
        before = [(key, head) for key in keys if (head := latest(self._known, key)) is not None]
        try:
            now = LedgerHead.open(told, keys[0])
            return any(now.cuts(LedgerHead.open(head, key)) for key, head in before)
        except Reject:
            return False  # no head at all: `take` leaves it out

    def take(self, told: Mapping[int, bytes], passed_on: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Keep what is news of these signed heads, on disk; what no hospital of the plan signed is left out.

        told: by the hospitals, each of itself, by index. passed_on: (identity, head) of others.
        """
        own = {self._identities[index]: (index, head) for index, head in told.items() if index in self._identities}
        for identity, (index, head) in own.items():
            self._note_serving(index, identity, head)
        wanted = self._wanted()
        rows = [(identity, head) for identity, (_, head) in own.items()]
        rows += [row for row in passed_on if row[0] in wanted]
        if not newer(self._known, rows):
            return
        with self._locked():
            self._refresh()  # another run may have written since
            self._known |= newer(self._known, rows)
            if self._path is not None:
                write_file(self._path, write_memory(self._known))

    def _note_serving(self, index: int, identity: bytes, head: bytes) -> None:
        try:
            self._serving[index] = LedgerHead.open(head, identity).dataset
        except Reject:
            return  # no head at all: it is left out

    def _wanted(self) -> set[bytes]:
        return {*self._identities.values(), *(key for keys in self.former.values() for key in keys)}

    def _refresh(self) -> None:
        self._known |= newer(self._known, ((key[0], head) for key, head in self._read().items()))

    def _read(self) -> Memory:
        return {} if self._path is None else _load(self._path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other run's process reads, changes and writes meanwhile."""
        if self._path is None:
            yield
            return
        lock = self._path.with_suffix(".lock")
        try:
            file = lock.open("ab")
        except OSError as error:
            raise OperatorError(
                "disk-write", what=f"cannot write {lock}: {error.strerror}", do="make its folder writable, then retry"
            ) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def read_heads(home: CoordinatorHome) -> list[dict[str, str]]:
    """The newest head of each hospital of the roster that has told one: site, and its audit log's hash (64 hex)."""
    known = _load(home.heads)
    rows = []
    for site in roster(home):
        key = bytes.fromhex(site.identity)
        head = latest(known, key)
        if head is not None:
            rows.append({"site": site.name, "audit": LedgerHead.open(head, key).audit.hex()})
    return rows


def _load(path: Path) -> Memory:
    if not path.exists():
        return {}
    try:
        return read_memory(path.read_bytes())
    except (OSError, ValueError):
        raise OperatorError(
            "heads-unreadable",
            what=f"{path} cannot be read",
            do="restore it from a backup, or remove it: hospitals tell each other's heads again",
        ) from None
