"""Laws of the policy check: an unapproved key is always seen, and a stricter policy never accepts more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cameo_protocol.envelope import fingerprint
from cameo_protocol.plan import Cohort, RunPlan, Site
from cameo_protocol.policy import Policy, check

HASH = "cd" * 32


def plan_of(sites: tuple[Site, ...], threshold: int, colluders: int, sigma: float, epsilon: float) -> RunPlan:
    return RunPlan.model_validate(
        {
            "name": "law",
            "seed": 0,
            "data": {"catalogue": "heart", "catalogue_sha256": HASH, "holdout": 0.2},
            "cohort": Cohort(sites=sites, threshold=threshold, colluders=colluders),
            "privacy": {"mode": "local", "epsilon": epsilon, "delta": 1e-5, "population": 920},
            "training": {"rounds": 3, "spare": 0},
            "tasks": [
                {
                    "kind": "segment",
                    "clusters": 3,
                    "temperature": 1.0,
                    "rate": 0.1,
                    "share": 1.0,
                    "encoded": {"dim": 4, "clip": 1.0, "bound": 9.0, "scale": 8, "sigma": sigma},
                }
            ],
        }
    )


@st.composite
def plans(draw: st.DrawFn) -> RunPlan:
    keys = draw(st.lists(st.binary(min_size=32, max_size=32), min_size=3, max_size=9, unique=True))
    n = len(keys)
    threshold = draw(st.integers(n // 2 + 1, n))
    colluders = draw(st.integers(0, max(0, min(2 * threshold - n - 1, threshold - 1))))
    sites = tuple(Site(name=f"h{i}", index=i + 1, identity=key.hex()) for i, key in enumerate(keys))
    return plan_of(sites, threshold, colluders, draw(st.floats(1e-3, 10)), draw(st.floats(0.1, 20)))


def policy_of(plan: RunPlan, **changes: object) -> Policy:
    peers = {site.name: fingerprint(bytes.fromhex(site.identity)) for site in plan.cohort.sites}
    allowed = {"tasks": ["segment"], "models": [], "privacy": ["local"], "catalogues": ["heart"], "labels": []}
    values = {"version": 1, "coordinator": fingerprint(b""), "peers": peers, "allowed": allowed}
    return Policy.model_validate(values | changes)


@given(plan=plans(), data=st.data())
def test_a_cohort_with_one_unapproved_key_is_refused(plan: RunPlan, data: st.DataObject) -> None:
    stranger = data.draw(st.sampled_from(plan.cohort.sites))
    peers = policy_of(plan).peers | {stranger.name: fingerprint(b"someone else")}
    refusals = check(policy_of(plan, peers=peers), plan, plan.cohort)
    assert f"peers.{stranger.name}" in {r.field for r in refusals}
    del peers[stranger.name]
    assert "peers" in {r.field for r in check(policy_of(plan, peers=peers), plan, plan.cohort)}


floors = st.fixed_dictionaries(
    {
        "hospitals": st.integers(3, 10),
        "threshold": st.integers(2, 10),
        "colluders": st.integers(0, 5),
        "sigma": st.floats(1e-3, 10),
    }
)


@given(plan=plans(), one=floors, two=floors)
def test_a_stricter_policy_never_accepts_more(plan: RunPlan, one: dict[str, float], two: dict[str, float]) -> None:
    both = {key: max(one[key], two[key]) for key in one}
    caps = {"epsilon_per_data_set": 20, "epsilon_per_year": 20}

    def fields(floor: dict[str, float]) -> set[str]:
        return {r.field for r in check(policy_of(plan, floors=floor, caps=caps), plan, plan.cohort)}

    assert fields(one) | fields(two) <= fields(both)


@given(plan=plans(), one=floors)
def test_an_accepted_plan_holds_every_floor(plan: RunPlan, one: dict[str, float]) -> None:
    policy = policy_of(plan, floors=one)
    if check(policy, plan, plan.cohort):
        return
    cohort = plan.cohort
    assert len(cohort.sites) >= one["hospitals"]
    assert cohort.threshold >= one["threshold"]
    assert 3 * cohort.threshold > 2 * len(cohort.sites)
    assert cohort.colluders >= one["colluders"]
    assert all(task.encoded.sigma >= one["sigma"] for task in plan.tasks)
    assert plan.privacy.epsilon <= min(policy.caps.epsilon_per_data_set, policy.caps.epsilon_per_year)
