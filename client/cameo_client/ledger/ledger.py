"""The hospital's ledger of one data set: reserve at admission, commit before bytes leave, never refund.

Source: design page "privacy", The ledger. Epsilon is always that of all releases composed, at the delta that was
fixed when the ledger was opened.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from cameo_client.ledger import report as reporting
from cameo_client.ledger.book import Book, Line, lines_of
from cameo_client.ledger.entries import (
    Caps,
    Closed,
    Committed,
    Entry,
    Head,
    Opened,
    Reserved,
    check,
    write,
)
from cameo_client.ledger.store import Row, Store, create, damaged
from cameo_protocol.errors import Bug, ExitCode, OperatorError, Reject
from cameo_protocol.privacy.releases import TaskReleases

CAP_TOLERANCE = 1e-6  # a plan whose epsilon is the cap is not refused for a rounding error

Clock = Callable[[], float]


class Receipt(NamedTuple):
    """A committed entry and the ledger's head right after it; the head may be told to peers for their echo."""

    entry: Committed
    head: Head


@dataclass(frozen=True, kw_only=True)
class Left:
    """Epsilon that is left under each cap, given what is committed and reserved; 0 when nothing is."""

    dataset: float
    year: float


class Ledger:
    """One data set's ledger. Safe for threads of a process and for processes of a machine: writers take turns."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.RLock()
        self._book = Book()

    @classmethod
    def create(cls, path: Path, *, dataset: str, delta: float, clock: Clock, random: Callable[[int], bytes]) -> Self:
        """Begin the ledger of a data set that was never used. random: CSPRNG, count -> bytes.

        An existing file is an `OperatorError` "ledger-exists": a ledger is never reset.
        """
        opened = Opened(at=int(clock()), dataset=dataset, delta=delta, salt=random(32))
        _checked(opened)
        body = write(opened)
        create(path, body, Book().next_hash(body))
        return cls.open(path, dataset=dataset, delta=delta, clock=clock)

    @classmethod
    def open(cls, path: Path, *, dataset: str, delta: float, clock: Clock) -> Self:
        """Open a ledger and check all of it. A missing, damaged or foreign file is an `OperatorError`.

        dataset, delta: what this node expects; both were fixed when the ledger was created.
        """
        ledger = cls(Store(path), clock)
        try:
            ledger.verify()
            opened = ledger._opened
            if opened.dataset != dataset:
                raise OperatorError(
                    "ledger-other-dataset",
                    what=f"{path} is the ledger of data set {opened.dataset}, not of {dataset}",
                    do="name the data set of this ledger in node.toml; new snapshots and columns keep its name",
                )
            if opened.delta != delta:
                raise OperatorError(
                    "ledger-other-delta",
                    what=f"{path} was opened at delta {opened.delta:g}, which stays; {delta:g} is configured",
                    do=f"set the delta of this data set to {opened.delta!r} in node.toml",
                )
        except BaseException:
            ledger.shut()
            raise
        return ledger

    def shut(self) -> None:
        """Let go of the file. (`close` closes a run.)"""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def reserve(self, run_id: str, plan_id: str, releases: TaskReleases, caps: Caps) -> None:
        """Set aside everything that a run may release, spare rounds included, or refuse the run.

        releases: (task, Release) pairs with different task names, see `plan_releases`. Refusal: `OperatorError`
        "budget-spent", exit POLICY. The same reservation again, while the run is open, changes nothing; another one
        for a known run is a `Reject` "run-known".
        """

        releases = tuple(releases)

        def decide() -> Entry | None:
            entry = Reserved(at=self._now(), run=run_id, plan=plan_id, releases=releases, caps=caps)
            _checked(entry)
            known = self._book.runs.get(run_id)
            if known and not known.closed and (known.reserved.plan, known.reserved.releases) == (plan_id, releases):
                return None
            self._book.check_new_run(run_id)
            self._check_caps(run_id, lines_of(releases), caps)
            return entry

        self._append(decide)

    def check_room(self, run_id: str, plan_id: str, releases: TaskReleases, caps: Caps) -> None:
        """Refuse as `reserve` would, and write nothing; a plan for which an open run has reserved already has room."""
        with self._current() as book:
            if not any(run.reserved.plan == plan_id and not run.closed for run in book.runs.values()):
                self._check_caps(run_id, lines_of(tuple(releases)), caps)

    def commit(
        self, run_id: str, round_no: int, kind: str, releases: TaskReleases, *, epoch: int = 0, upload: bytes = b""
    ) -> Receipt:
        """Record what a round releases. Call it before the bytes leave; only its return allows them to.

        kind: one of `PURPOSES`; a hospital's own analytics and audits are runs of one round. round_no: number of the
        secure sum in the epoch, whatever its kind. upload: SHA-256 of the vector when known.
        A second commit of a (run, epoch, round) is a `Reject` "round-already-spent", but for the retransmission of
        a known upload, which returns its first receipt. Beyond the reserve: `Reject` "reserve-exceeded".
        """
        releases, repeated = tuple(releases), list[Receipt]()

        def decide() -> Entry | None:
            entry = Committed(
                at=self._now(), run=run_id, epoch=epoch, round_no=round_no, kind=kind, releases=releases, upload=upload
            )
            _checked(entry)
            first = self._book.rounds.get((run_id, epoch, round_no))
            if first and upload and _same(first[0], entry):
                repeated.append(Receipt(*first))
                return None
            self._book.check_commit(entry)
            return entry

        self._append(decide)
        return repeated[0] if repeated else Receipt(*self._book.rounds[run_id, epoch, round_no])

    def close(self, run_id: str) -> None:
        """End a run: what it reserved and did not commit is free again, and it can commit no more. Idempotent."""

        def decide() -> Entry | None:
            known = self._book.runs.get(run_id)
            if known and known.closed:
                return None
            self._book.open_run(run_id)
            return Closed(at=self._now(), run=run_id)

        self._append(decide)

    def verify(self) -> Head:
        """Read everything anew. `OperatorError` "ledger-corrupt" names the first bad entry. Returns the head."""
        with self._lock:
            self._store.check_pages()
            fresh = Book()
            with self._store.snapshot():
                self._read_into(fresh)
            if fresh.head.entries < self._book.head.entries:
                raise self._rolled_back(self._book.head.entries, fresh.head.entries)
            self._book = fresh
            return fresh.head

    def head(self) -> Head:
        """How many entries there are and the hash of the last; tells nothing about patients or other runs."""
        with self._current() as book:
            return book.head

    def check_echo(self, count: int, digest: bytes) -> None:
        """Refuse ("ledger-rolled-back") when this ledger is behind, or differs from, a head it once told others.

        (0, b"") means that nobody has seen this ledger yet.
        """
        if count == 0 and digest == b"":
            return
        with self._current() as book:
            if count < 1 or count > book.head.entries or book.hash_at(count) != digest:
                raise self._rolled_back(count, book.head.entries)

    def spent(self) -> float:
        """Epsilon of everything committed, for ever."""
        with self._current() as book:
            return book.epsilon(book.spent)

    def reserved(self) -> float:
        """Epsilon of what open runs may still commit, taken alone (epsilons do not add up)."""
        with self._current() as book:
            return book.epsilon(book.reserved())

    def held(self) -> float:
        """Epsilon of everything committed and reserved together: what the caps are held against."""
        with self._current() as book:
            return book.epsilon(book.spent, book.reserved())

    def spent_in_year(self) -> float:
        """Epsilon of what was committed in the 365 days up to now."""
        with self._current() as book:
            return book.epsilon(book.window(self._now()))

    def left(self, caps: Caps) -> Left:
        """What is left under each cap."""
        with self._current() as book:
            held = book.epsilon(book.spent, book.reserved())
            in_year = book.epsilon(book.window(self._now()), book.reserved())
        return Left(dataset=max(0.0, caps.dataset - held), year=max(0.0, caps.year - in_year))

    def by_task(self) -> dict[str, float]:
        """Task -> epsilon of its committed releases, each task taken alone."""
        with self._current() as book:
            return reporting.by_task(book)

    def rounds(self, run_id: str) -> frozenset[tuple[int, int]]:
        """(epoch, round in it) of everything that a run has committed."""
        with self._current() as book:
            return frozenset((epoch, number) for run, epoch, number in book.rounds if run == run_id)

    def plan_of(self, run_id: str) -> str:
        """Id of the plan for which a run was admitted, open or closed; a `Reject` "run-unknown" when it never was."""
        with self._current() as book:
            return book.known_run(run_id).reserved.plan

    def runs(self) -> tuple[str, ...]:
        """Every run that was ever admitted, in order of admission."""
        with self._current() as book:
            return tuple(book.runs)

    def open_runs(self) -> tuple[str, ...]:
        """Runs that still hold a reserve, in order of admission."""
        with self._current() as book:
            return tuple(name for name, run in book.runs.items() if not run.closed)

    def curve(self, points: int = 60) -> tuple[reporting.Point, ...]:
        """Epsilon after commits: at most that many, evenly spread, the last one always among them."""
        with self._current() as book:
            return reporting.curve(book, points)

    def report(self, caps: Caps | None = None, *, points: int = reporting.CURVE_POINTS) -> dict[str, Any]:
        """Everything about this ledger as one JSON-able object with a schema_version. points: most of its curve."""
        with self._current() as book:
            return reporting.report(book, self._now(), caps, points)

    @property
    def dataset(self) -> str:
        """The data set whose ledger this is."""
        return self._opened.dataset

    @property
    def _opened(self) -> Opened:
        if self._book.opened is None:
            raise damaged(self._store.path, "it has no opening entry")
        return self._book.opened

    def _now(self) -> int:
        """Seconds since 1970; never before the last entry, so that a clock set back frees no yearly cap."""
        return max(int(self._clock()), self._book.last_at)

    def _append(self, decide: Callable[[], Entry | None]) -> None:
        """Append what `decide` returns for the newest state of the file, durably, or nothing at all."""

        def next_row() -> Row | None:
            self._read_into(self._book)
            entry = decide()
            if entry is None:
                return None
            body = write(entry)
            return Row(self._book.head.entries + 1, body, self._book.next_hash(body))

        with self._lock:
            row = self._store.write(next_row)
            if row is not None:
                self._book.extend(row.body, row.hash)
                self._store.settle()

    @contextmanager
    def _current(self) -> Iterator[Book]:
        """The book after every entry that is in the file now; no other thread changes it meanwhile."""
        with self._lock:
            with self._store.snapshot():
                self._read_into(self._book)
            yield self._book

    def _read_into(self, book: Book) -> None:
        """Take the entries of the file that the book has not seen, and hold the file against its own head."""
        before, stored = book.head, self._store.head()
        if stored.entries < 1:
            raise damaged(self._store.path, "it has no opening entry")
        if stored.entries < before.entries:
            raise self._rolled_back(before.entries, stored.entries)
        for row in self._store.rows_after(before.entries):
            try:
                if row.seq != book.head.entries + 1:
                    raise Reject("entry-invalid", what="it is missing")
                book.extend(row.body, row.hash)
            except Reject as error:
                raise damaged(self._store.path, f"entry {book.head.entries + 1}: {error.what}") from None
        if book.head != stored:
            first = min(book.head.entries, stored.entries)
            raise damaged(self._store.path, f"entry {first + 1}: not what the file's head says")

    def _rolled_back(self, seen: int, found: int) -> OperatorError:
        return OperatorError(
            "ledger-rolled-back",
            what=f"{self._store.path} has {found} entries; others have seen entry {seen}, or another one in its place",
            do="an older copy was put back: bring back the newest one, or ask the data protection"
            " officer to retire this data set",
            exit=ExitCode.POLICY,
        )

    def _check_caps(self, run_id: str, wanted: Counter[Line], caps: Caps) -> None:
        book = self._book
        reserved = book.reserved()
        limits = (
            ("epsilon_per_data_set", "for this data set", caps.dataset, book.spent),
            ("epsilon_per_year", "in 365 days", caps.year, book.window(self._now())),
        )
        for name, span, cap, spent in limits:
            after = book.epsilon(spent, reserved, wanted)
            if after <= cap * (1 + CAP_TOLERANCE):
                continue
            held = book.epsilon(spent, reserved)
            raise OperatorError(
                "budget-spent",
                what=f"run {run_id} alone is epsilon {book.epsilon(wanted):.3f}; {span}, {book.epsilon(spent):.3f} is"
                f" spent, {held:.3f} with what open runs hold, {after:.3f} with this run; the cap is {cap:g}, so"
                f" {max(0.0, cap - held):.3f} is left",
                do=f"ask for a plan with a smaller epsilon, or let the data protection officer raise caps.{name} in"
                " policy.yaml; see: cameo-node ledger",
                exit=ExitCode.POLICY,
            )


def _same(first: Committed, again: Committed) -> bool:
    return (first.upload, first.kind, first.releases) == (again.upload, again.kind, again.releases)


def _checked(entry: Entry) -> None:
    try:
        check(entry)
    except (ValueError, TypeError, AttributeError):
        raise Bug(
            "ledger-entry", what=f"a {type(entry).__name__.lower()} entry with a field out of its range"
        ) from None
