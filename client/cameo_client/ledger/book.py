"""What the entries of a ledger add up to: a replay, and the rules for the next entry. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cameo_client.ledger.entries import Closed, Committed, Entry, Head, Opened, Reserved, chain, read
from cameo_protocol.errors import Reject
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.releases import Release, TaskReleases

WINDOW_DAYS = 365
_DAY = 86_400

Line = tuple[str, float, float]  # task, sigma, q
Round = tuple[str, int, int]  # run, epoch, round


@dataclass(eq=False)
class Run:
    """One admitted run. unused: what it may still commit."""

    reserved: Reserved
    unused: Counter[Line]
    spent: Counter[Line] = field(default_factory=Counter)
    rounds: int = 0
    closed: bool = False


class Book:
    """The state after the entries read so far. Only `extend` changes it, and only by whole, checked entries."""

    def __init__(self) -> None:
        self.opened: Opened | None = None
        self.last_at = 0
        self.runs: dict[str, Run] = {}
        self.rounds: dict[Round, tuple[Committed, Head]] = {}
        self.spent: Counter[Line] = Counter()
        self.days: dict[int, Counter[Line]] = {}
        self._hashes: list[bytes] = []

    @property
    def head(self) -> Head:
        """Number of entries, and the hash of the last."""
        return Head(len(self._hashes), self._hashes[-1] if self._hashes else b"")

    def hash_at(self, count: int) -> bytes:
        """The hash of the entry number `count` (1 = the first)."""
        return self._hashes[count - 1]

    def next_hash(self, body: bytes) -> bytes:
        """The hash that an entry with this body gets as the next one."""
        return chain(self.head.hash, body)

    def extend(self, body: bytes, digest: bytes) -> Entry:
        """Take the next entry; `Reject` when its hash, form or meaning does not follow from those before it."""
        if self.next_hash(body) != digest:
            raise Reject("entry-invalid", what="its hash does not follow from the entry before")
        entry = read(body)
        if entry.at < self.last_at:
            raise Reject("entry-invalid", what="it is older than the entry before")
        if isinstance(entry, Opened) == (self.opened is not None):
            raise Reject("entry-invalid", what="a ledger has one opening entry, the first")
        match entry:
            case Opened():
                self.opened = entry
            case Reserved():
                self.check_new_run(entry.run)
                self.runs[entry.run] = Run(entry, Counter(dict(_lines(entry.releases))))
            case Committed():
                self._commit(entry, Head(self.head.entries + 1, digest))
            case Closed():
                self.open_run(entry.run).closed = True
        self._hashes.append(digest)
        self.last_at = entry.at
        return entry

    def _commit(self, entry: Committed, head: Head) -> None:
        self.check_commit(entry)
        run, lines = self.runs[entry.run], dict(_lines(entry.releases))
        run.rounds += 1
        run.unused.subtract(lines)
        day = self.days.setdefault(entry.at // _DAY, Counter())
        for total in (run.spent, self.spent, day):
            total.update(lines)
        self.rounds[entry.run, entry.epoch, entry.round_no] = (entry, head)

    def check_new_run(self, run: str) -> None:
        """`Reject` when the run was admitted before."""
        if run in self.runs:
            raise Reject("run-known", what=f"run {run} was admitted before, with other terms or to its end")

    def open_run(self, run: str) -> Run:
        """The run; `Reject` when it was never admitted or is closed."""
        found = self.known_run(run)
        if found.closed:
            raise Reject("run-closed", what=f"run {run} is closed in this ledger")
        return found

    def known_run(self, run: str) -> Run:
        """The run, open or closed; `Reject` when it was never admitted."""
        if run not in self.runs:
            raise Reject("run-unknown", what=f"run {run} has reserved nothing in this ledger")
        return self.runs[run]

    def check_commit(self, entry: Committed) -> None:
        """`Reject` unless the round is new and lies within what its run has reserved and not yet used."""
        run = self.open_run(entry.run)
        if (entry.run, entry.epoch, entry.round_no) in self.rounds:
            what = f"round {entry.round_no} of epoch {entry.epoch} of run {entry.run} is spent already"
            raise Reject("round-already-spent", what=what)
        for line, count in _lines(entry.releases):
            if run.unused[line] < count:
                what = f"round {entry.round_no} asks for a release of task {line[0]} that run {entry.run} has not left"
                raise Reject("reserve-exceeded", what=what)

    def reserved(self) -> Counter[Line]:
        """What open runs may still commit."""
        total: Counter[Line] = Counter()
        for run in self.runs.values():
            if not run.closed:
                total.update(run.unused)
        return total

    def window(self, at: int) -> Counter[Line]:
        """What was committed on the 365 UTC days that end with the day of `at`."""
        last = at // _DAY
        total: Counter[Line] = Counter()
        for day, lines in self.days.items():
            if last - WINDOW_DAYS < day:
                total.update(lines)
        return total

    def epsilon(self, *totals: Counter[Line]) -> float:
        """Epsilon of all the totals composed, at the ledger's delta."""
        if self.opened is None:
            raise Reject("entry-invalid", what="a ledger begins with its opening entry")
        return epsilon((release for total in totals for release in _releases(total)), self.opened.delta)


def lines_of(releases: TaskReleases) -> Counter[Line]:
    """Releases as counts by task, sigma and q."""
    return Counter(dict(_lines(releases)))


def _lines(releases: TaskReleases) -> Iterator[tuple[Line, int]]:
    for task, release in releases:
        yield (task, float(release.sigma), float(release.q)), release.count


def _releases(total: Counter[Line]) -> Iterable[Release]:
    return (Release(sigma=sigma, q=q, count=count) for (_, sigma, q), count in total.items() if count > 0)
