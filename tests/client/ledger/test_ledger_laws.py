"""A ledger against a model of it that keeps plain lists, over random lives; and the entries' byte form."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_kit import DAY, DELTA, FULL, PLAN, Clock, again, fresh

from cameo_client.ledger import Caps, Ledger
from cameo_client.ledger.entries import MAX_TIME, PURPOSES, Closed, Committed, Entry, Opened, Reserved, read, write
from cameo_protocol import canonical
from cameo_protocol.errors import OperatorError, Reject
from cameo_protocol.privacy.accountant import gaussian_epsilon
from cameo_protocol.privacy.releases import Release, TaskReleases

CAPS = Caps(dataset=2.0, year=1.0)
SIGMA = {"risk": 20.0, "segment": 35.0, "evaluation": 6.0}
names = st.sampled_from([f"run-{i}" for i in range(6)])
tasks = st.sets(st.sampled_from(sorted(SIGMA)), min_size=1)


def of(counts: dict[str, int]) -> TaskReleases:
    return tuple((task, Release(sigma=SIGMA[task], q=1.0, count=n)) for task, n in sorted(counts.items()))


def epsilon_of(*parts: list[tuple[str, int]]) -> float:
    mu2 = sum(n / SIGMA[task] ** 2 for part in parts for task, n in part)
    return gaussian_epsilon(mu2**0.5, DELTA)


class Life(RuleBasedStateMachine):
    """Random reservations, commits, ends, restarts and days."""

    @initialize()
    def begin(self) -> None:
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.path, self.clock = self.folder / "heart.ledger", Clock()
        self.ledger: Ledger = fresh(self.path, self.clock)
        self.unused: dict[str, dict[str, int]] = {}
        self.terms: dict[str, dict[str, int]] = {}
        self.closed: set[str] = set()
        self.spent: list[tuple[int, str, int]] = []
        self.rounds: dict[tuple[str, int, int], tuple[dict[str, int], bytes]] = {}
        self.entries, self.last = 1, self.ledger.head()

    def held(self) -> list[tuple[str, int]]:
        return [(t, n) for run, left in self.unused.items() if run not in self.closed for t, n in left.items()]

    def ever(self) -> list[tuple[str, int]]:
        return [(task, n) for _, task, n in self.spent]

    def year(self) -> list[tuple[str, int]]:
        today = int(self.clock.at) // DAY
        return [(task, n) for day, task, n in self.spent if day > today - 365]

    @rule(run=names, wanted=tasks, count=st.integers(1, 60))
    def reserve(self, run: str, wanted: set[str], count: int) -> None:
        asked = dict.fromkeys(sorted(wanted), count)
        more = list(asked.items())
        fits = (
            epsilon_of(self.ever(), self.held(), more) <= CAPS.dataset * (1 + 1e-6)
            and epsilon_of(self.year(), self.held(), more) <= CAPS.year * (1 + 1e-6)
        )  # fmt: skip
        if run in self.terms:
            if run not in self.closed and self.terms[run] == asked:
                self.ledger.reserve(run, PLAN, of(asked), CAPS)
            else:
                with pytest.raises(Reject, match="run-known"):
                    self.ledger.reserve(run, PLAN, of(asked), CAPS)
        elif fits:
            self.ledger.reserve(run, PLAN, of(asked), CAPS)
            self.terms[run], self.unused[run] = asked, dict(asked)
            self.entries += 1
        else:
            with pytest.raises(OperatorError, match="budget-spent"):
                self.ledger.reserve(run, PLAN, of(asked), CAPS)

    @precondition(lambda self: self.terms)
    @rule(
        data=st.data(),
        epoch=st.integers(0, 1),
        round_no=st.integers(0, 12),
        count=st.integers(1, 4),
        upload=st.sampled_from([b"", b"a" * 32, b"b" * 32]),
    )
    def commit(self, data: st.DataObject, epoch: int, round_no: int, count: int, upload: bytes) -> None:
        run = data.draw(st.sampled_from(sorted(self.terms)))
        asked = dict.fromkeys(data.draw(tasks), count)
        key = (run, epoch, round_no)
        act = lambda: self.ledger.commit(run, round_no, "train", of(asked), epoch=epoch, upload=upload)  # noqa: E731
        if key in self.rounds and upload and self.rounds[key] == (asked, upload):
            assert act().entry.round_no == round_no
            return
        left = self.unused[run]
        if run in self.closed or key in self.rounds or any(left.get(t, 0) < n for t, n in asked.items()):
            with pytest.raises(Reject):
                act()
            return
        receipt = act()
        assert receipt.head == self.ledger.head()
        for task, n in asked.items():
            left[task] -= n
            self.spent.append((int(self.clock.at) // DAY, task, n))
        self.rounds[key] = (asked, upload)
        self.entries += 1

    @precondition(lambda self: self.terms)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.terms)))
        self.ledger.close(run)
        self.entries += run not in self.closed
        self.closed.add(run)

    @rule(days=st.sampled_from([0, 1, 30, 200, 364]))
    def wait(self, days: int) -> None:
        self.clock.at += days * DAY

    @rule()
    def restart(self) -> None:
        self.ledger.shut()
        self.ledger = again(self.path, self.clock)

    @rule()
    def another_process_looks(self) -> None:
        with again(self.path, self.clock) as other:
            assert other.report(CAPS) == self.ledger.report(CAPS)

    @invariant()
    def sums_are_exact(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert self.ledger.head().entries == self.entries
        assert self.ledger.spent() == pytest.approx(epsilon_of(self.ever()), rel=1e-9)
        assert self.ledger.reserved() == pytest.approx(epsilon_of(self.held()), rel=1e-9)
        assert self.ledger.held() == pytest.approx(epsilon_of(self.ever(), self.held()), rel=1e-9)
        assert self.ledger.spent_in_year() == pytest.approx(epsilon_of(self.year()), rel=1e-9)

    @invariant()
    def caps_hold_and_nothing_is_forgotten(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert self.ledger.held() <= CAPS.dataset * (1 + 1e-6)
        self.ledger.check_echo(*self.last)
        self.last = self.ledger.head()

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.verify()
            self.ledger.shut()
            shutil.rmtree(self.folder)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=2000 if FULL else 25,
    stateful_step_count=50 if FULL else 30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

texts = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,20}", fullmatch=True)
times = st.integers(0, MAX_TIME)
released = st.dictionaries(
    texts,
    st.builds(
        Release,
        sigma=st.floats(1e-3, 1e6),
        q=st.floats(0, 1, exclude_min=True),
        count=st.integers(1, 2**40),
    ),
    min_size=1,
    max_size=4,
).map(lambda found: tuple(found.items()))
entries = st.one_of(
    st.builds(Opened, at=times, dataset=texts, delta=st.floats(1e-12, 0.1), salt=st.binary(min_size=32, max_size=32)),
    st.builds(
        Reserved,
        at=times,
        run=texts,
        plan=texts,
        releases=released,
        caps=st.builds(Caps, dataset=st.floats(0.1, 100), year=st.floats(0.1, 100)),
    ),
    st.builds(
        Committed,
        at=times,
        run=texts,
        epoch=st.integers(0, 2**31 - 1),
        round_no=st.integers(0, 2**31 - 1),
        kind=st.sampled_from(sorted(PURPOSES)),
        releases=released,
        upload=st.sampled_from([b"", b"u" * 32]),
    ),
    st.builds(Closed, at=times, run=texts),
)


@given(entries)
def test_an_entry_reads_back_as_it_was_written(entry: Entry) -> None:
    assert read(write(entry)) == entry


@given(entries, st.data())
def test_a_changed_byte_is_another_entry_or_none(entry: Entry, data: st.DataObject) -> None:
    body = bytearray(write(entry))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Reject):
        assert write(read(bytes(body))) == bytes(body)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_entry_are_rejected(body: bytes) -> None:
    with pytest.raises(Reject):
        read(body)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(["at", "run", "plan", "releases", "caps", "epoch", "round", "kind", "upload", "delta", "salt"])


@given(st.sampled_from(["opened", "reserved", "committed", "closed"]), st.dictionaries(keys, json_like, max_size=9))
def test_canonical_values_that_are_no_entry_are_rejected(kind: str, rest: dict[str, object]) -> None:
    with pytest.raises(Reject):
        read(canonical.encode({"entry": kind, **rest, "extra": 1}))
