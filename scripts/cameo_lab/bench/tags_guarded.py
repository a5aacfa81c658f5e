"""The guards on many candidates, and one patient from facts to decisions, in a process of its own.

python -m cameo_lab.bench.tags_guarded PATIENTS RULES CANDIDATES SEED. Prints one JSON object: candidates, guard_cpu_s
(guards 1 to 12, median of three), guard_peak_mb, single_patient_ms (wall, median of 31) and
single_patient_cpu_ms.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from statistics import median

import numpy as np
import polars as pl

from cameo_client.data.catalogue import load_catalogue
from cameo_client.tags.apply import apply, needed_columns, run_guards
from cameo_client.tags.bind import BoundRule
from cameo_client.tags.contact import CONTACT_GUARDS, wants_contact
from cameo_client.tags.engine import prepare
from cameo_client.tags.guards import GUARDS
from cameo_client.tags.pack import Scope
from cameo_client.tags.policy import load_policy
from cameo_client.tags.schema import ModelInfo, Schema, schema_of
from cameo_client.tags.world import Circumstances, Mask, Quality, World
from cameo_lab.bench.peak import peak_mb
from cameo_lab.bench.tags_made import FACTS, made_patients, made_rules
from cameo_protocol.confdir import conf_dir

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
FLAGS = (
    "objected", "deceased", "record_locked", "pregnancy_loss", "bereavement", "mental_acute", "surgery_30d",
    "end_of_life", "abuse", "hiv_sti", "dx_depression", "gck_variant", "pcsk9_variant", "insurance",
)  # fmt: skip


class Consents:
    """Decisions held in memory, four in five a yes: what the guards cost is measured, not SQLite."""

    def granted(
        self,
        pseudonyms: Sequence[str],
        scope: Scope,  # noqa: ARG002 - the protocol's arguments
        now: datetime,  # noqa: ARG002
        *,
        minors: frozenset[str] = frozenset(),
        double_confirmed: bool = False,  # noqa: ARG002
    ) -> Mask:
        """Every fifth patient has given no answer, a minor's does not count."""
        rows = np.arange(len(pseudonyms)) % 5 != 0
        if minors:
            rows &= np.fromiter((name not in minors for name in pseudonyms), dtype=bool, count=len(pseudonyms))
        return np.asarray(rows, dtype=bool)

    def withdrawn(self, scope: Scope, now: datetime) -> frozenset[str]:  # noqa: ARG002
        """A hundred patients said no."""
        return frozenset(f"{row:032x}" for row in range(0, 500, 5))


def circumstances(rules: Sequence[BoundRule]) -> Circumstances:
    """Everything in order, so that no guard stops a whole rule and each has work to do."""
    names = sorted({name for rule in rules for name in rule.models})
    models = [
        ModelInfo(name=name, version=1, model_id="made", released=NOON, audited=True, calibrated=True) for name in names
    ]
    return Circumstances(
        policy=load_policy(conf_dir() / "tags" / "policy" / "guards.yaml"),
        consent=Consents(),
        quality=Quality(97.0),
        models=models,
        approved_packs={rule.pack_sha256 for rule in rules},
        now=NOON,
        snapshot=date(2026, 5, 20),
    )


def guards(schema: Schema, rules: Sequence[BoundRule], patients: int, candidates: int, seed: int) -> dict[str, float]:
    """Guards 1 to 12 on candidates that are spread evenly over patients and rules."""
    given = circumstances(rules)
    facts = made_patients(schema, patients, seed, (*FACTS, *FLAGS))
    frame = prepare(facts, schema, needed_columns(rules, schema, given.policy))
    names = tuple(facts["pseudonym"].to_list())
    del facts
    nobody = np.zeros(patients, dtype=bool)
    world = World(frame=frame, pseudonyms=names, schema=schema, rules=rules, given=given,
                  unknown=dict.fromkeys((rule.key for rule in rules), nobody))  # fmt: skip
    draw = np.random.default_rng(seed)
    proposed = {rule.key: _some(patients, candidates // len(rules), draw) for rule in rules}
    seconds = []
    for _ in range(3):
        began = time.process_time()
        codes = run_guards(GUARDS, world, proposed)
        stored = {key: proposed[key] & (codes[key] == 0) for key in proposed}
        run_guards(CONTACT_GUARDS, world, wants_contact(world, stored))
        seconds.append(time.process_time() - began)
    return {
        "candidates": float(sum(int(rows.sum()) for rows in proposed.values())),
        "kept": float(sum(int(rows.sum()) for rows in stored.values())),
        "guard_cpu_s": median(seconds),
        "guard_peak_mb": peak_mb(),
    }


def _some(rows: int, count: int, draw: np.random.Generator) -> Mask:
    mask = np.zeros(rows, dtype=bool)
    mask[draw.choice(rows, size=min(count, rows), replace=False)] = True
    return mask


def single(schema: Schema, rules: Sequence[BoundRule], seed: int) -> dict[str, float]:
    """One patient from facts to decisions, by the call that `tags apply` makes."""
    given = circumstances(rules)
    wall, cpu = [], []
    many = made_patients(schema, 31, seed, (*FACTS, *FLAGS))
    for row in range(many.height):
        one: pl.DataFrame = many[row : row + 1]
        began, ticks = time.perf_counter(), time.process_time()
        list(apply(one, rules, schema, given).decisions())
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - ticks)
    return {"single_patient_ms": median(wall) * 1000, "single_patient_cpu_ms": median(cpu) * 1000}


def main(patients: int, count: int, candidates: int, seed: int) -> None:
    """Measure both and print what they took."""
    schema = schema_of(load_catalogue("cardiometabolic"))
    rules = made_rules(schema, count, seed)
    found = single(schema, rules, seed) | guards(schema, rules, patients, candidates, seed)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:5]))
