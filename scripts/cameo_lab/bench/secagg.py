"""`cameo bench secagg`: the secure sum beside Flower's SecAgg+, CKKS, a plain sum and the bare keystream."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cameo_lab.bench import secagg_ours as ours
from cameo_lab.bench.secagg_clock import median_cpu, rounded
from cameo_protocol.secagg.kernel import CHUNK_LANES, Keystream, Stream, apply_streams

Say = Callable[[str], None]
REPEATS, FLOWER_REPEATS, DEPLOYED_ROUNDS, SMALL_N = 7, 3, 6, 10


def bench_secagg(n: int, d: int, say: Say, *, deployed: bool = False) -> dict[str, Any]:
    """Measure everything at n hospitals and d lanes; one JSON object, see docs/benchmarks.md for each figure.

    Figures are medians of CPU seconds of the process (Flower's server: one run); ratios above 1 say that ours is
    faster. say: progress.
    """
    values = np.random.default_rng(0).normal(size=d)
    small, _ = _clients(SMALL_N, values, say)
    large, world = _clients(n, values, say)
    servers = _servers(world, n, values, say)
    kernel = _kernel(n, d, say)
    ckks, note = _ckks(values, say)
    bytes_per_coordinate = (large["round_bytes"] + world.setup_bytes / ours.ROUNDS) / d
    ratios = {**_ratios(large, small, servers, kernel, ckks), "bytes_per_coordinate": bytes_per_coordinate}
    return {
        "n": n,
        "d": d,
        "ratios": {name: None if value is None else round(value, 4) for name, value in ratios.items()},
        "bytes_per_coordinate": round(bytes_per_coordinate, 4),
        "cpu_seconds": {
            "client": {"ours": rounded(large["ours"]), "flower": rounded(large["flower"])},
            "client_n10": {"ours": rounded(small["ours"]), "flower": rounded(small["flower"])},
            "server": {"ours": rounded(servers["ours"]), "flower": rounded(servers["flower"])},
            "kernel": rounded(kernel),
            "ckks": None if ckks is None else rounded(ckks),
        },
        "repeats": {"ours": REPEATS, "flower_client": FLOWER_REPEATS, "flower_server": 1, "others": REPEATS},
        "deployed": _deployed(d, say) if deployed else None,
        "notes": [note] if note else [],
        "machine": machine(),
    }


def _ratios(
    large: dict[str, Any],
    small: dict[str, Any],
    servers: dict[str, dict[str, float]],
    kernel: dict[str, float],
    ckks: dict[str, float] | None,
) -> dict[str, float | None]:
    """Theirs over ours. A "mask stage" is what makes bytes of numbers, key stages and acknowledgements left out."""
    mine, theirs = servers["ours"], servers["flower"]
    return {
        "client_vs_flower": large["flower"]["total"] / large["ours"]["total"],
        "client_vs_flower_n10": small["flower"]["total"] / small["ours"]["total"],
        "server_vs_flower": theirs["opening"] / mine["opening"],
        "server_vs_flower_dropouts": theirs["opening_dropouts"] / mine["opening_dropouts"],
        "kernel_vs_keystream": kernel["aes_ctr"] / kernel["mask"],
        "kernel_vs_own_keystream": kernel["own_keystream"] / kernel["mask"],
        "client_vs_ckks": None if ckks is None else ckks["encrypt"] / _mask_stage(large["ours"]),
        "mask_stage_vs_flower": large["flower"]["collect_masked_vectors"] / _mask_stage(large["ours"]),
        "mask_stage_vs_flower_n10": small["flower"]["collect_masked_vectors"] / _mask_stage(small["ours"]),
        "server_vs_plain_sum": kernel["plain_sum"] / mine["opening"],
    }


def _deployed(d: int, say: Say) -> dict[str, Any]:
    from cameo_lab.bench.secagg_deployed import deployed_round

    return deployed_round(d, DEPLOYED_ROUNDS, say)


def table(found: dict[str, Any]) -> str:
    """The ratios for people."""
    head = f"n = {found['n']} hospitals, d = {found['d']} lanes; CPU time; above 1: ours is faster"
    rows = [
        f"{name:<28}{'not measured' if value is None else f'{value:.2f}'}" for name, value in found["ratios"].items()
    ]
    return "\n".join([head, *rows, *_deployed_rows(found["deployed"]), *found["notes"]])


def _deployed_rows(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    head = f"deployed: {found['hospitals']} hospitals over TLS, wall seconds a round: {found['round_s']:.3f}"
    own = found["slowest_hospital_s"]
    stages = [f"  {name:<10}{s:.3f}, of which a hospital {own[name]:.3f}" for name, s in found["stages_s"].items()]
    rest = f"  neither a hospital's nor the coordinator's own work: {found['elsewhere_s']:.3f}"
    return [head, *stages, rest]


def machine() -> str:
    """What this ran on, in words."""
    model = "unknown processor"
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return f"{os.cpu_count()} cores, {model}"


def _mask_stage(seconds: dict[str, float]) -> float:
    """From numbers to bytes that are ready to be sent: what CKKS does by encryption."""
    return seconds["encode"] + seconds["upload"]


def _clients(n: int, values: npt.NDArray[np.float64], say: Say) -> tuple[dict[str, Any], ours.World]:
    """One client's round of each; ours with its share of the set-up, which Flower makes anew every round."""
    from cameo_lab.bench import secagg_flower as flower

    say(f"n = {n}: keys of {n} hospitals for {ours.ROUNDS} rounds")
    world = ours.build(n, values.size)
    say(f"n = {n}: one client of ours, {REPEATS} rounds")
    cost = ours.measure_client(world, REPEATS)
    mine = {**cost.seconds, "setup_share": world.setup_cpu / ours.ROUNDS}
    say(f"n = {n}: one client of Flower's SecAgg+, {FLOWER_REPEATS} rounds")
    theirs = flower.measure_client(n, values, FLOWER_REPEATS)
    for seconds in (mine, theirs):
        seconds["total"] = sum(seconds.values())
    return {"ours": mine, "flower": theirs, "round_bytes": cost.round_bytes}, world


def _servers(world: ours.World, n: int, values: npt.NDArray[np.float64], say: Say) -> dict[str, dict[str, float]]:
    from cameo_lab.bench import secagg_flower as flower

    lost = ours.tenth(n)
    mine, theirs = {}, {}
    for round_no, (name, gone) in enumerate((("opening", []), ("opening_dropouts", lost)), start=REPEATS + 1):
        say(f"n = {n}: our coordinator, {len(gone)} dropped out, {REPEATS} openings of one round")
        cost = ours.measure_server(world, round_no, gone, REPEATS)
        mine[name], mine["taking_one_upload"] = cost.opening, cost.taking_one
        say(f"n = {n}: Flower's server, {len(gone)} dropped out, once (at n = 100 about a minute)")
        theirs[name] = flower.measure_server(n, values, gone)
    return {"ours": mine, "flower": theirs}


def _kernel(n: int, d: int, say: Say) -> dict[str, float]:
    """n streams over d lanes: our mask; the keystreams alone, by AES-CTR and as we make them; a plain sum of n rows."""
    say("mask kernel, bare keystreams, plain sum")
    keys = [os.urandom(32) for _ in range(n)]
    streams = [Stream(key, place % 2 == 0) for place, key in enumerate(keys)]
    lanes, rows = np.zeros(d, dtype=np.uint32), np.ones((min(n, 8), d), dtype=np.uint32)
    size = 4 * min(CHUNK_LANES, d)
    zeros, out = memoryview(bytes(size)), memoryview(bytearray(size))

    def all_keys(make: Callable[[bytes], Callable[[memoryview, memoryview], object]]) -> None:
        for key in keys:
            read, left = make(key), 4 * d
            while left > 0:
                part = min(size, left)
                read(zeros[:part], out[:part])
                left -= part

    def plain_sum() -> None:
        lanes.fill(0)
        for place in range(n):
            np.add(lanes, rows[place % len(rows)], out=lanes)

    return {
        "mask": median_cpu(lambda: apply_streams(lanes, streams), REPEATS),
        "aes_ctr": median_cpu(lambda: all_keys(_ctr), REPEATS),
        "own_keystream": median_cpu(lambda: all_keys(lambda key: Keystream(key).read_into), REPEATS),
        "plain_sum": median_cpu(plain_sum, REPEATS),
    }


def _ctr(key: bytes) -> Callable[[memoryview, memoryview], object]:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update_into


def _ckks(values: npt.NDArray[np.float64], say: Say) -> tuple[dict[str, float] | None, str]:
    """CPU seconds of TenSEAL's CKKS, degree 8192, moduli [60, 40, 40], public-key encryption; or why there are none."""
    try:
        import tenseal
    except ImportError:
        return None, "TenSEAL is not installed (pip install tenseal), so CKKS was not measured"
    say("CKKS encryption")
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40])
    context.global_scale = 2**40
    slots = 4096  # of a ciphertext; a longer vector is a list of ciphertexts, and TenSEAL prints a warning

    def encrypt() -> list[Any]:
        return [tenseal.ckks_vector(context, values[low : low + slots]) for low in range(0, values.size, slots)]

    sealed = encrypt()
    size = sum(len(part.serialize()) for part in sealed)
    seconds = median_cpu(encrypt, REPEATS)
    serialise = median_cpu(lambda: [part.serialize() for part in sealed], REPEATS)
    return {"encrypt": seconds, "serialise": serialise, "bytes_per_coordinate": size / values.size}, ""
