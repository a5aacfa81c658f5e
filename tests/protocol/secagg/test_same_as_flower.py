"""The same sum as Flower's SecAgg+ on equal quantised inputs (invariant 16): its own arithmetic, as its mod uses it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from secagg_parties import epoch_params, run_round, set_up, stream

DIM, MOD, CLIP, TARGET = 50, 2**32, 3.0, 2**16


def flower_sum(quantised: dict[int, np.ndarray], survivors) -> np.ndarray:
    """SecAgg+ with a complete graph: self masks and pairwise masks, opened for survivors and dropouts."""
    own = {i: stream(("own", i))(32) for i in quantised}
    pair = {(i, j): stream(("pair", i, j))(32) for i, j in combinations(sorted(quantised), 2)}

    def mask(seed: bytes) -> list[np.ndarray]:
        return pseudo_rand_gen(seed, MOD, [(DIM,)])

    masked = {}
    for i, vector in quantised.items():
        out = arithmetic.parameters_addition([vector], mask(own[i]))
        for (low, high), seed in pair.items():
            if i in (low, high):
                sign = arithmetic.parameters_addition if i == high else arithmetic.parameters_subtraction
                out = sign(out, mask(seed))
        masked[i] = arithmetic.parameters_mod(out, MOD)
    total = [np.zeros(DIM, dtype=np.int64)]
    for i in survivors:
        total = arithmetic.parameters_addition(total, masked[i])
        shares = create_shares(own[i], 3, len(quantised))
        total = arithmetic.parameters_subtraction(total, mask(combine_shares(shares[:3])))
    for (low, high), seed in pair.items():
        if (low in survivors) != (high in survivors):
            sign = arithmetic.parameters_subtraction if high in survivors else arithmetic.parameters_addition
            total = sign(total, mask(seed))
    return arithmetic.parameters_mod(total, MOD)[0].astype(np.uint32)


def test_the_same_sum_as_secaggplus_with_and_without_a_dropout() -> None:
    rng = np.random.default_rng(5)
    floats = {i: rng.normal(size=DIM) for i in (1, 2, 3, 4)}
    quantised = {i: quantize([x], CLIP, TARGET)[0].astype(np.int64) for i, x in floats.items()}
    inputs = {i: q.astype(np.uint32) for i, q in quantised.items()}
    fed = set_up(epoch_params(rounds=2, dim=DIM))
    for round_no, survivors in enumerate(((1, 2, 3, 4), (1, 2, 4))):
        ours = run_round(fed, fed.start(round_no), inputs, uploads=survivors).result
        np.testing.assert_array_equal(ours.total, flower_sum(quantised, survivors))
