"""Every interleaving of a round of a small cohort, with the real hospitals: invariants 3, 4 and 6 as a model check.

A breadth-first search over all states that a coordinator can bring the honest hospitals into. It starts them, shows
them any survivor set that can be made of headers that exist by then, asks for reveals with all acks that exist by
then, and restores any of them from a snapshot of its memory at the start, in any order; colluders sign whatever it
likes, two vectors each. Hospitals meet only through their messages, so a step of one is computed once, by the real
code, for each state of its own, and the search combines them.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest
from secagg_parties import MemoryJournal, epoch_params, identity, set_up, snapshot, vectors

from cameo_protocol.errors import Reject
from cameo_protocol.secagg import client_round, messages
from cameo_protocol.secagg.transcript import read_survivors

FULL = bool(os.environ.get("CAMEO_FULL"))
Shown = tuple[int, tuple[tuple[int, int], ...]]  # model, (survivor, which of its headers)


class Local(NamedTuple):
    """One hospital. memory: name of a kept state; said: everything that it ever released, in order."""

    memory: tuple[object, ...]
    said: tuple[tuple[object, ...], ...]


START = Local(("free",), ())
World = tuple[Local, ...]


@dataclass
class Explorer:
    """The honest hospitals of a cohort whose last `liars` members collude, and the steps that they can take."""

    n: int
    t: int
    c: int
    liars: int
    models: int = 1
    steps: dict[object, Local | None] = field(default_factory=dict)
    memories: dict[object, client_round.Live] = field(default_factory=dict)
    journals: dict[object, dict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fed = set_up(epoch_params(self.n, self.t, self.c, rounds=2))
        members = sorted(self.fed.all)
        self.honest, self.colluding = members[: self.n - self.liars], members[self.n - self.liars :]
        self.starts = [replace(self.fed.start(), model_hash=bytes([m]) * 32) for m in range(self.models)]
        self.inputs = vectors(members, 7)
        self.headers: dict[tuple[int, int, int], bytes] = {}
        for i in self.honest:
            self.memories[i, START.memory], self.journals[i, START.said] = self.fed.lives[i], {}
            for m in range(self.models):
                self._step(i, START, ("upload", m))
        for i, m, which in itertools.product(self.colluding, range(self.models), (0, 1)):
            self.headers[i, m, which] = self._lie(i, m, which)
        self.sets = {shown: self._digest(shown) for shown in self._shown()}

    def _lie(self, i: int, m: int, which: int) -> bytes:
        start = self.starts[m]
        facts = {"invited": start.invited_digest(), "context": start.context(self.fed.params)}
        message = messages.Upload(sender=i, vector=bytes([which]) * 32, **self._where(), **facts)
        return messages.seal(identity(i), message)

    def _where(self) -> dict:
        return {"transcript": self.fed.epoch.cohort.transcript, "round_no": 0}

    def _shown(self) -> Iterator[Shown]:
        """Every survivor set that is large enough; smaller ones are refused at once (test_params.py)."""
        for m, size in itertools.product(range(self.models), range(self.fed.params.least, self.n + 1)):
            for members in itertools.combinations(sorted(self.fed.all), size):
                choices = [[(i, which) for which in ((0, 1) if i in self.colluding else (0,))] for i in members]
                yield from ((m, rows) for rows in itertools.product(*choices))

    def _digest(self, shown: Shown) -> bytes:
        m, rows = shown
        headers = {i: self.headers[i, m, which] for i, which in rows}
        return read_survivors(self.fed.epoch.cohort, self.starts[m], headers).digest

    def next_of(self, world: World) -> Iterator[World]:
        """All worlds one step on."""
        said = {i: set(local.said) for i, local in zip(self.honest, world, strict=True)}
        possible = [
            shown for shown in self.sets
            if all(i in self.colluding or ("upload", shown[0]) in said[i] for i, _ in shown[1])
        ]  # fmt: skip
        for place, i in enumerate(self.honest):
            local = world[place]
            asked: list[tuple[object, ...]] = [("upload", m) for m in range(self.models)]
            asked += [("ack", shown) for shown in possible]
            if local.memory[0] == "ack":
                shown = local.memory[1]
                asked.append(("reveal", shown, tuple(j for j in self.honest if ("ack", shown) in said[j])))
            asked.append(("restore",))
            for step in asked:
                after = self._step(i, local, step)
                if after is not None and after != local:
                    yield (*world[:place], after, *world[place + 1 :])

    def _step(self, i: int, local: Local, step: tuple[object, ...]) -> Local | None:
        """Where a step takes a hospital; None when it refuses. Computed once by the real code."""
        key = (i, local, step)
        if key not in self.steps:
            try:
                self.steps[key] = self._take(i, local, step)
            except Reject:
                self.steps[key] = None
        return self.steps[key]

    def _take(self, i: int, local: Local, step: tuple[object, ...]) -> Local:
        if step[0] == "restore":
            return Local(START.memory, local.said)
        live = snapshot(self.memories[i, local.memory])
        live._journal = MemoryJournal(dict(self.journals[i, local.said]))
        memory: tuple[object, ...] = step[:2]
        match step[0]:
            case "upload":
                _, header, _ = client_round.upload(live, self.starts[step[1]], self.inputs[i])
                self.headers[i, step[1], 0] = header
            case "ack":
                m, rows = step[1]
                shown = {j: self.headers[j, m, which] for j, which in rows}
                client_round.acknowledge(live, self.starts[m], shown)
            case "reveal":
                client_round.reveal(live, live._state, self._acks(step[1], step[2]))
                memory = ("over",)
        after = Local(memory, (*local.said, tuple(step[:2])))
        self.memories.setdefault((i, memory), live)
        self.journals.setdefault((i, after.said), live._journal.entries)
        return after

    def _acks(self, shown: Shown, of: tuple[int, ...]) -> dict[int, bytes]:
        return {
            j: messages.seal(identity(j), messages.Ack(sender=j, survivors=self.sets[shown], **self._where()))
            for j in (*of, *self.colluding)
        }

    def reachable(self) -> set[World]:
        """Every world that some order of steps leads to."""
        first = (START,) * len(self.honest)
        found, waiting = {first}, deque([first])
        while waiting:
            for world in self.next_of(waiting.popleft()):
                if world not in found:
                    found.add(world)
                    waiting.append(world)
        return found

    def faults(self, world: World) -> set[str]:
        """What the invariants forbid and this world shows."""
        acked, revealed = defaultdict(set), defaultdict(set)
        found = set()
        for i, local in zip(self.honest, world, strict=True):
            kinds = [said[0] for said in local.said]
            found |= {f"two of {kind}" for kind in kinds if kinds.count(kind) > 1}
            for kind, shown in local.said:
                if kind == "ack":
                    acked[shown].add(i)
                if kind == "reveal":
                    survivors = {j for j, _ in shown[1]}
                    for j in self.fed.all:
                        revealed[j, "b" if j in survivors else "c"].add(i)
        if sum(len(who) + self.liars >= self.t for who in acked.values()) > 1:
            found.add("two quorums")
        if any(all(len(revealed[j, use]) + self.liars >= self.t for use in "bc") for j in self.fed.all):
            found.add("both opened")
        return found


COHORTS = [(3, 3, 0, 1), (4, 3, 1, 1), (4, 4, 2, 1)] + ([(4, 3, 1, 2), (5, 4, 2, 1)] if FULL else [])


@pytest.mark.parametrize(("n", "t", "c", "models"), COHORTS)
def test_no_order_of_steps_reaches_two_quorums_or_both_secrets(n: int, t: int, c: int, models: int) -> None:
    explorer = Explorer(n, t, c, liars=c, models=models)
    worlds = explorer.reachable()
    assert not {fault for world in worlds for fault in explorer.faults(world)}
    opened = [w for w in worlds if sum(("reveal" in dict(local.said)) for local in w) + c >= t]
    assert opened, "the search reaches rounds that are opened"
    print(f"n={n} t={t} c={c} models={models}: {len(worlds)} worlds, {len(explorer.steps)} steps of hospitals")


def test_control_one_colluder_more_than_c_reaches_two_quorums_and_both_secrets() -> None:
    explorer = Explorer(4, 3, 1, liars=2)
    found = {fault for world in explorer.reachable() for fault in explorer.faults(world)}
    assert found == {"two quorums", "both opened"}


def test_control_hospitals_without_a_journal_say_things_twice() -> None:
    """Restored from a snapshot, each forgets what it said."""
    explorer = Explorer(3, 3, 0, liars=0)
    explorer.journals = defaultdict(dict)
    world = (START,) * 3
    for i, step in ((0, ("upload", 0)), (0, ("restore",)), (0, ("upload", 0))):
        after = explorer._step(explorer.honest[i], world[i], step)
        assert after is not None
        world = (after, *world[1:])
    assert explorer.faults(world) == {"two of upload"}
