"""`cameo bench tags`: the rule engine beside DuckDB, SQLite and row-wise Python; the guards; one patient."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cameo_protocol.errors import Bug

Say = Callable[[str], None]
SEED, REPEATS = 7, 3
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class TagFigures:
    """CPU seconds are of all threads, medians of three. The row-wise ways run on `sample` patients and are scaled up.

    engine: from facts in memory to a three-valued column for each rule. *_peak_mb: resident memory of a process that
    does nothing else, facts and interpreter included. agree: every cell of DuckDB's answers, and of the sample's
    from the row-wise ways, is the engine's. guard: guards 1 to 12 on `candidates` proposals. single_patient: from
    one patient's facts to decisions, wall and CPU.
    """

    patients: int
    rules: int
    comparisons: int
    sample: int
    agree: bool
    engine_cpu_s: float
    engine_peak_mb: float
    duckdb_cpu_s: float
    duckdb_peak_mb: float
    sqlite_cpu_s: float
    rowwise_cpu_s: float
    candidates: int
    guard_cpu_s: float
    guard_peak_mb: float
    single_patient_ms: float
    single_patient_cpu_ms: float

    def as_dict(self) -> dict[str, Any]:
        """For --json, with ratios: above 1 ours is faster."""
        ratios = {name: getattr(self, f"{name}_cpu_s") / self.engine_cpu_s for name in ("duckdb", "sqlite", "rowwise")}
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "ratios": ratios}


def bench_tags(patients: int, rules: int, sample: int, candidates: int, say: Say) -> TagFigures:
    """Measure all of it, each way in a process of its own. Two ways that differ in one cell: `Bug`."""
    sample = min(sample, patients)
    with tempfile.TemporaryDirectory(prefix="cameo-bench-") as private:
        file = Path(private) / "patients.parquet"
        say(f"{patients:,} made-up patients")
        comparisons = _make(file, patients, rules)
        found = {way: _way(way, file, rules, sample, say) for way in ("engine", "duckdb", "sqlite", "rowwise")}
    engine = found["engine"]
    same = found["duckdb"]["sha256"] == engine["sha256"]
    same &= all(found[way]["sha256_sample"] == engine["sha256_sample"] for way in found)
    if not same:
        raise Bug("bench-tags", what="two ways gave different answers, so their times mean nothing")
    say(f"guards on {candidates:,} candidates, and one patient")
    words = [str(number) for number in (patients, rules, candidates, SEED)]
    guarded = _child(["cameo_lab.bench.tags_guarded", *words], "")
    scale = patients / sample
    return TagFigures(
        patients=patients,
        rules=rules,
        comparisons=comparisons,
        sample=sample,
        agree=same,
        engine_cpu_s=engine["cpu_s"],
        engine_peak_mb=engine["peak_mb"],
        duckdb_cpu_s=found["duckdb"]["cpu_s"],
        duckdb_peak_mb=found["duckdb"]["peak_mb"],
        sqlite_cpu_s=found["sqlite"]["cpu_s"] * scale,
        rowwise_cpu_s=found["rowwise"]["cpu_s"] * scale,
        candidates=int(guarded["candidates"]),
        guard_cpu_s=guarded["guard_cpu_s"],
        guard_peak_mb=guarded["guard_peak_mb"],
        single_patient_ms=guarded["single_patient_ms"],
        single_patient_cpu_ms=guarded["single_patient_cpu_ms"],
    )


def table(found: TagFigures) -> str:
    """The figures as text."""
    ratios = found.as_dict()["ratios"]
    rows = [
        f"{found.rules} rules with {found.comparisons} comparisons on {found.patients:,} patients, CPU s:",
        f"  engine    {found.engine_cpu_s:10.3f}   peak {found.engine_peak_mb:.0f} MB",
        f"  DuckDB    {found.duckdb_cpu_s:10.3f}   x {ratios['duckdb']:.0f}",
        f"  SQLite    {found.sqlite_cpu_s:10.1f}   x {ratios['sqlite']:.0f}   from {found.sample:,} patients",
        f"  row-wise  {found.rowwise_cpu_s:10.1f}   x {ratios['rowwise']:.0f}   from {found.sample:,} patients",
        f"guards      {found.guard_cpu_s:10.3f}   on {found.candidates:,} candidates",
        f"one patient {found.single_patient_ms:10.1f} ms, of which CPU {found.single_patient_cpu_ms:.1f} ms",
        "all answers agree",
    ]
    return "\n".join(rows)


def _make(file: Path, patients: int, rules: int) -> int:
    """Write the patients; how many comparisons the rules hold."""
    from cameo_client.data.catalogue import load_catalogue
    from cameo_client.tags.predicate import leaves, weight
    from cameo_client.tags.schema import schema_of
    from cameo_lab.bench.tags_made import made_patients, made_rules

    schema = schema_of(load_catalogue("cardiometabolic"))
    made_patients(schema, patients, SEED).write_parquet(file)
    return sum(weight(leaf) for rule in made_rules(schema, rules, SEED) for leaf in leaves(rule.enter))


def _way(way: str, file: Path, rules: int, sample: int, say: Say) -> dict[str, Any]:
    say(f"{way}: {rules} rules")
    work = {"way": way, "file": str(file), "rules": rules, "seed": SEED, "repeats": REPEATS, "sample": sample}
    return _child(["cameo_lab.bench.tags_ways"], json.dumps(work))


def _child(words: list[str], text: str) -> dict[str, Any]:
    """The JSON object that a module of this package prints, run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", *words], input=text + "\n", capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        raise Bug("bench-tags", what=f"{words[0]} ended with {done.returncode}: {last[0][:200]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
