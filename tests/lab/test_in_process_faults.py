"""Hospitals that are late, lost, restarted or back again: sums stay exact, and nothing is released twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_federation import SmallFederation, at_most_once, check_sums, events, made_up_vectors, round_of, small_plan

from cameo_lab.in_process import Gone
from cameo_protocol.errors import OperatorError
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_protocol.stages import ACK, ADMIT, ADVERTISE, READY, REVEAL, SHARE, UPLOAD
from cameo_server.run.store import RunStore

Make = Callable[..., SmallFederation]


@pytest.fixture(scope="module")
def plans() -> dict[int, RunPlan]:
    return {n: small_plan(n, "training.rounds=3", "training.spare=2") for n in (4, 5)}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A federation whose vectors are watched."""
    made = []

    def build(plan: RunPlan) -> SmallFederation:
        federation = SmallFederation(plan, tmp_path)
        made_up_vectors(monkeypatch, federation)
        made.append(federation)
        return federation

    yield build
    for federation in made:
        federation.close()


class Nth:
    """A fault: (site, kind) -> messages of that kind, counted from 1, that get no answer; None = all from then on."""

    def __init__(self, faults: dict[tuple[int, str], tuple[int, int | None]]) -> None:
        self._faults = faults
        self._seen: Counter[tuple[int, str]] = Counter()
        self.dead: set[int] = set()

    def __call__(self, site: int, packet: Packet) -> None:
        if site in self.dead:
            raise Gone
        self._seen[site, packet.kind] += 1
        first, last = self._faults.get((site, packet.kind), (0, 0))
        if first and self._seen[site, packet.kind] == first:
            if last is None:
                self.dead.add(site)
            raise Gone


def sites(event: dict[str, object], field: str) -> list[int]:
    return [int(name.removeprefix("hospital-")) for name in event[field]]  # type: ignore[attr-defined]


def test_a_hospital_whose_upload_was_lost_on_the_way_helps_and_stays_in_the_epoch(
    make: Make, plans: dict[int, RunPlan]
) -> None:
    """Without hospital 2, which is not in the sum, two acknowledgements would not be enough to open it."""
    federation = make(plans[4])
    federation.after = Nth({(2, UPLOAD): (2, 2)})
    federation.before = Nth({(3, ACK): (2, 2)})
    store = federation.drive()

    _, second, third, *_ = events(store, "round")
    assert sites(second, "survivors") == [1, 3, 4]
    assert 2 in sites(third, "invited")
    assert check_sums(federation, store) == len(events(store, "round")) >= 3
    assert not events(store, "void")
    assert at_most_once(federation)


def test_a_member_that_was_not_invited_helps(make: Make, plans: dict[int, RunPlan]) -> None:
    federation = make(plans[5].model_copy(update={"training": plans[5].training.model_copy(update={"spare": 0})}))
    federation.before = Nth({(5, UPLOAD): (1, 1), (4, ACK): (2, 2)})
    federation.after = Nth({(5, ADMIT): (2, 2)})  # back, but its answer is lost: the coordinator counts it as gone
    store = federation.drive()

    second = events(store, "round")[1]
    assert sites(second, "invited") == sites(second, "survivors") == [1, 2, 3, 4]
    assert len(federation.watch.answers[5, REVEAL, round_of(store, second["round"])]) == 1
    assert check_sums(federation, store) == len(events(store, "round"))
    assert not events(store, "void")
    assert at_most_once(federation)


def test_without_a_helper_the_same_round_is_void(make: Make, plans: dict[int, RunPlan]) -> None:
    """The control: the hospital whose upload was lost does not come back for the acknowledgement."""
    federation = make(plans[4])
    federation.after = Nth({(2, UPLOAD): (2, None)})
    dead = federation.after.dead
    federation.before = _both(Nth({(3, ACK): (2, 2)}), lambda site, _: _gone(site in dead))
    store = federation.drive()

    assert [event["reason"] for event in events(store, "void")] == ["acks-too-few"]
    assert check_sums(federation, store) == len(events(store, "round"))


def _both(*faults: Callable[[int, Packet], None]) -> Callable[[int, Packet], None]:
    def fault(site: int, packet: Packet) -> None:
        for one in faults:
            one(site, packet)

    return fault


def _gone(condition: bool) -> None:
    if condition:
        raise Gone


def test_epochs_roll_over_by_themselves(make: Make, plans: dict[int, RunPlan]) -> None:
    federation = make(plans[4])
    store = federation.drive(epoch_rounds=2)

    rounds = events(store, "round")
    assert [event["epoch"] for event in events(store, "epoch")] == [1, 2, 3][: -(-len(rounds) // 2)]
    assert [event["epoch"] for event in rounds] == [1 + number // 2 for number in range(len(rounds))]
    assert check_sums(federation, store) == len(rounds)
    assert events(store, "published")


def test_a_hospital_restarted_in_the_middle_of_an_epoch_is_out_until_the_next(
    make: Make, plans: dict[int, RunPlan]
) -> None:
    federation = make(plans[4])
    asked: Counter[str] = Counter()

    def restart(site: int, packet: Packet) -> None:
        asked[packet.kind] += site == 2
        if site == 2 and packet.kind == ACK and asked[ACK] == 1:
            federation.restart(2)

    federation.before = restart
    store = federation.drive()

    (lost,) = events(store, "lost")
    assert (lost["site"], lost["stage"], lost["code"]) == ("hospital-2", ACK, "out-of-order")
    assert [event["sites"] for event in events(store, "returned")] == [["hospital-2"]]
    _, second = events(store, "epoch")
    rounds = events(store, "round")
    assert sites(rounds[0], "survivors") == [1, 2, 3, 4]
    assert [event["epoch"] for event in rounds] == [1] + [second["epoch"]] * (len(rounds) - 1)
    assert all(sites(event, "survivors") == [1, 2, 3, 4] for event in rounds[1:])
    assert check_sums(federation, store) == len(rounds)
    assert at_most_once(federation)


@pytest.mark.parametrize("stage", [ADVERTISE, SHARE, READY])
def test_a_hospital_lost_in_the_set_up_is_left_out_and_taken_in_later(
    make: Make, plans: dict[int, RunPlan], stage: str
) -> None:
    federation = make(plans[4])
    federation.before = Nth({(2, stage): (1, 1)})
    store = federation.drive()

    assert events(store, "lost")[0]["stage"] == stage
    assert events(store, "returned")[0]["sites"] == ["hospital-2"]
    assert sites(events(store, "round")[-1], "survivors") == [1, 2, 3, 4]
    assert check_sums(federation, store) == len(events(store, "round"))


class Waiting:
    """Two of four hospitals are lost in the second round; `back` says after how many waits they are there again."""

    def __init__(self, federation: SmallFederation, back: int | None) -> None:
        self.now, self.waits = 0.0, 0
        self._back, self._lost = back, Nth({(2, UPLOAD): (2, None), (3, UPLOAD): (2, None)})
        federation.before, federation.clock, federation.pause = self._lost, lambda: self.now, self.wait

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waits += 1
        if self.waits == self._back:
            self._lost.dead.clear()


def waiting_plan(plan: RunPlan, seconds: float) -> RunPlan:
    return plan.model_copy(update={"deadlines": plan.deadlines.model_copy(update={"regroup": seconds})})


def test_too_few_hospitals_are_waited_for_and_the_run_goes_on(make: Make, plans: dict[int, RunPlan]) -> None:
    federation = make(waiting_plan(plans[4], 30.0))
    waiting = Waiting(federation, back=7)
    store = federation.drive()

    (event,) = events(store, "waiting")
    assert (event["sites"], event["seconds"], event["needed"]) == (["hospital-2", "hospital-3"], 30.0, 3)
    assert waiting.waits == 7
    assert events(store, "returned")[0]["sites"] == ["hospital-2", "hospital-3"]
    assert len(events(store, "void")) == 1
    assert events(store, "published")
    assert check_sums(federation, store) == len(events(store, "round"))


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_the_wait_ends_at_the_deadline_of_the_plan(make: Make, plans: dict[int, RunPlan], seconds: float) -> None:
    federation = make(waiting_plan(plans[4], seconds))
    waiting = Waiting(federation, back=None)
    with pytest.raises(OperatorError) as stopped:
        federation.drive()
    assert stopped.value.code == "cohort-incomplete"
    assert seconds <= waiting.now <= seconds + 1
    store = RunStore(federation.root / "runs" / "r1")
    assert [event["event"] for event in store.events()][-2:] == ["stopped", "finished"]


def test_somebody_who_stops_the_run_need_not_wait(make: Make, plans: dict[int, RunPlan]) -> None:
    federation = make(waiting_plan(plans[4], 30.0))
    waiting = Waiting(federation, back=None)
    store = federation.store("r1")

    def stop(seconds: float) -> None:
        waiting.wait(seconds)
        store.ask_to_stop()

    federation.pause = stop
    with pytest.raises(OperatorError):
        federation.drive()
    assert waiting.waits == 1


def test_nobody_waits_for_hospitals_that_declined(make: Make, plans: dict[int, RunPlan]) -> None:
    federation = make(waiting_plan(plans[4], 30.0))
    waiting = Waiting(federation, back=None)
    federation.before = Nth({(1, UPLOAD): (1, None)})
    for index in (3, 4):
        federation.hospitals[index].handler._gate.study = _no_data  # type: ignore[assignment]
    with pytest.raises(OperatorError):
        federation.drive()
    assert waiting.waits == 0


def _no_data(_plan: RunPlan) -> None:
    raise OperatorError("quality-low", what="x", do="y")
