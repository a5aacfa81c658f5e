"""A whole deployed round: SuperLink, superexec and four hospital processes on this machine, over TLS, with node keys.

The run loop's own set-up and rounds carry vectors of d lanes, and models of d float32 the other way; only training is
left out, since no model that ships has so many parameters. Every message, signature, journal entry and log is real.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cameo_client.flower.keys import generate_node_key
from cameo_lab.bench import secagg_ours as ours
from cameo_lab.bench.local import free_port, make_local_tls
from cameo_lab.bench.secagg_deployed_app import RESULT
from cameo_lab.bench.secagg_deployed_node import ANSWERS, IDENTITY, NODE, NODE_KEY
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.plan import Cohort, DataTerms, Encoded, PrivacyTerms, RiskTask, RunPlan, Site, Training
from cameo_protocol.secagg.encoding import largest_scale
from cameo_server.flower.bundle import build_bundle
from cameo_server.flower.settings import SuperLinkSettings
from cameo_server.flower.supervisor import SuperLinkStack

HOSPITALS, THRESHOLD = 4, 3
_SLOWEST_S = 300.0


def deployed_round(d: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Medians in wall seconds over rounds 2 .. `rounds`: the round, its stages, and the hospitals' own part of each.

    `coordinator_cpu_s`: taking in four uploads and opening the sum, measured by itself. `elsewhere_s` is what is left
    of a round when that and the slowest hospital's own seconds are taken off: transport, Flower, logs on disk.
    """
    with tempfile.TemporaryDirectory(prefix="cameo-bench-") as name, contextlib.ExitStack() as stack:
        home = Path(name)
        identities = {i: Ed25519PrivateKey.generate() for i in range(1, HOSPITALS + 1)}
        (home / "plan.json").write_bytes(_plan(d, identities).canonical())
        say(f"deployed: {HOSPITALS} hospitals, d = {d}, {rounds} rounds over TLS")
        _run(home, identities, rounds, stack)
        result = json.loads((home / RESULT).read_text())
        answers = [json.loads((home / f"h{i}" / ANSWERS).read_text()) for i in identities]
    cost = ours.measure_server(ours.build(HOSPITALS, d), 0, [], 3)
    return _summary(d, result, answers, HOSPITALS * cost.taking_one + cost.opening)


def _run(home: Path, identities: Mapping[int, Ed25519PrivateKey], rounds: int, stack: contextlib.ExitStack) -> None:
    tls = make_local_tls(home / "tls")
    settings = SuperLinkSettings(
        home=home,
        certificate=tls.certificate,
        key=tls.key,
        fleet_host="127.0.0.1",
        fleet_port=free_port(),
        control_port=free_port(),
    )
    link = stack.enter_context(SuperLinkStack(settings))
    control = stack.enter_context(link.control())
    nodes = {}
    for index, identity in identities.items():
        folder, keys = home / f"h{index}", generate_node_key()
        folder.mkdir()
        for path, key, form in (
            (IDENTITY, identity, PrivateFormat.PKCS8),
            (NODE_KEY, keys.private, PrivateFormat.PKCS8),
        ):
            (folder / path).write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
        given = {"index": index, "address": f"127.0.0.1:{settings.fleet_port}", "ca": str(tls.ca)}
        (folder / NODE).write_text(json.dumps(given))
        nodes[index] = control.register_node(keys.public_bytes(), folder.name)
        stack.enter_context(_hospital(folder))
    (home / "deployed.json").write_text(json.dumps({"nodes": nodes, "rounds": rounds}))
    config = {"plan": "", "plan-sha256": "", "run": "bench", "home": str(home)}
    run = control.start_run(build_bundle(home, server_app="cameo_lab.bench.secagg_deployed_app:app"), config)
    end = time.monotonic() + _SLOWEST_S
    while control.run_status(run).status != "finished":
        if time.monotonic() > end:
            raise _failed(home, "the deployed rounds took too long")
        time.sleep(0.2)
    if not (home / RESULT).exists():
        raise _failed(home, "the deployed run ended without a result")


@contextlib.contextmanager
def _hospital(folder: Path) -> Iterator[None]:
    """A hospital's process, ended with the block, or with us."""
    command = [sys.executable, "-m", "cameo_lab.bench.secagg_deployed_node", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(8)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _plan(d: int, identities: Mapping[int, Ed25519PrivateKey]) -> RunPlan:
    """A plan whose training vector has d lanes."""
    clip, bound, sigma = 1.0, 8.0, 1.0
    scale = largest_scale(dim=d, clip=clip, bound=bound, sigma=sigma, n=HOSPITALS, t=THRESHOLD, c=0)
    encoded = Encoded(dim=d, clip=clip, bound=bound, scale=scale, sigma=sigma)
    task = RiskTask(label="bench", label_sha256="0" * 64, rate=0.1, share=1.0, encoded=encoded)
    sites = tuple(
        Site(name=f"h{i}", index=i, identity=key.public_key().public_bytes_raw().hex()) for i, key in identities.items()
    )
    return RunPlan(
        name="bench",
        seed=0,
        data=DataTerms(catalogue="bench", catalogue_sha256="0" * 64, holdout=0.2),
        cohort=Cohort(sites=sites, threshold=THRESHOLD, colluders=0),
        privacy=PrivacyTerms(mode="distributed", epsilon=1.0, delta=1e-6, population=1000),
        training=Training(rounds=1, spare=0),
        tasks=(task,),
    )


def _summary(
    d: int, result: dict[str, Any], answers: list[dict[str, list[float]]], coordinator_s: float
) -> dict[str, Any]:
    rounds = result["rounds"][1:]
    stages = {stage: statistics.median(r[stage] for r in rounds) for stage in rounds[0]}
    own = {stage: max(statistics.median(a[stage][1:]) for a in answers) for stage in stages}
    whole = statistics.median(sum(r.values()) for r in rounds)
    return {
        "hospitals": HOSPITALS,
        "d": d,
        "rounds": len(rounds),
        "setup_s": round(result["setup_s"], 4),
        "round_s": round(whole, 4),
        "stages_s": {stage: round(value, 4) for stage, value in stages.items()},
        "slowest_hospital_s": {stage: round(value, 4) for stage, value in own.items()},
        "coordinator_cpu_s": round(coordinator_s, 4),
        "elsewhere_s": round(whole - sum(own.values()) - coordinator_s, 4),
    }


def _failed(home: Path, what: str) -> OperatorError:
    """With the last words of the logs: the folder goes away."""
    tails = " | ".join(f"{log.name}: {log.read_text()[-300:]}" for log in sorted(home.rglob("log*/*.log")))
    return OperatorError(
        "bench-failed", what=f"{what}; {tails}", do="run it again on a quiet machine", exit=ExitCode.PEER
    )
