"""Faults planted one at a time in the secure sum, and the test that must turn red for each.

Run as a program: python mutants.py [NAME ...]; it prints the mutants that survived and exits 1 if there are any. The
control, the package as it is, must survive. Each mutant is a copy of the package with one text replaced, tested in a
forked child.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PACKAGE = ROOT / "protocol" / "cameo_protocol"


class Mutant(NamedTuple):
    """invariant: number in the design page. file: in secagg/. old must occur once. test: node ids below this folder."""

    invariant: int
    file: str
    old: str
    new: str
    test: str


ONCE, SUM, GOLDEN, MESSAGES = "test_once.py", "test_secure_sum.py", "test_secagg_golden.py", "test_messages.py"
DEALER, QUORUMS, VIEW = (
    "test_wrong_dealer.py",
    "test_two_quorums.py",
    "test_view_laws.py",
)
MODEL = "test_interleavings.py"
KERNEL, SHARING, PARAMS, ENCODING = (
    "test_kernel.py",
    "test_shamir.py",
    "test_params.py",
    "test_encoding_laws.py",
)

ATTACK = "test_malicious_coordinator.py::test_deviation_is_refused_and_no_share_leaves[{}]"
MUTANTS: dict[str, Mutant] = {
    "edge sign of the opening": Mutant(1, "opening.py", "peer > gone", "peer < gone", SUM),
    "own mask added twice": Mutant(1, "client_round.py", ".data, True)]", ".data, True)] * 2", SUM),
    "edges of the uninvited": Mutant(
        1,
        "client_round.py",
        "sorted(start.invited - {live.index})",
        "sorted(set(live.cohort.members) - {live.index})",
        MESSAGES + "::test_a_member_that_was_not_invited_or_whose_upload_was_lost_still_answers",
    ),
    "t - 1 reveals open": Mutant(
        2,
        "server_round.py",
        "if len(self._shares) < self.epoch.cohort.params.threshold:",
        "if len(self._shares) < 1:",
        SUM,
    ),
    "t - 1 acks are a quorum": Mutant(
        2, "server_round.py", "if len(self._acks) < self.epoch.cohort.params.threshold:", "if len(self._acks) < 1:", SUM
    ),
    "two uploads are enough": Mutant(
        2,
        "server_round.py",
        "if len(self._headers) < self.epoch.cohort.params.least:",
        "if len(self._headers) < 2:",
        SUM,
    ),
    "upload not journalled": Mutant(
        3, "client_round.py", 'live._journal.record(cohort.transcript, start.round_no, "upload", context)', "pass", ONCE
    ),
    "ack not journalled": Mutant(
        3,
        "client_round.py",
        'live._journal.record(live.cohort.transcript, round_no, "ack", survivors.digest)',
        "pass",
        ONCE,
    ),
    "reveal not journalled": Mutant(
        3,
        "client_round.py",
        'live._journal.record(cohort.transcript, round_no, "reveal", survivors.digest)',
        "pass",
        ONCE,
    ),
    "a round may be opened again": Mutant(
        3, "client_round.py", "if start.round_no < live.floor:", "if start.round_no < live.floor - 1:", ONCE
    ),
    "any old acknowledgement may be revealed": Mutant(
        3, "client_round.py", "if live._state is not acked:", "if False:", ONCE
    ),
    "a second set may be acknowledged": Mutant(
        4, "client_round.py", "case Acked(SurvivorSet(ours)) if ours.round_no == start.round_no:", "case None:", QUORUMS
    ),
    "ack not journalled, in any order": Mutant(
        3,
        "client_round.py",
        'live._journal.record(live.cohort.transcript, round_no, "ack", survivors.digest)',
        "pass",
        MODEL,
    ),
    "dropouts' masks are opened": Mutant(
        4,
        "client_round.py",
        "if index in survivors.members else live._keys.open_shares",
        "if index else live._keys.open_shares",
        SUM,
    ),
    "two survivors are enough": Mutant(
        5, "transcript.py", "if len(headers) < cohort.params.least:", "if False:", ATTACK.format("truncated_sets")
    ),
    "survivors need no invitation": Mutant(
        5,
        "transcript.py",
        "strangers = headers.keys() - start.invited",
        "strangers = set()",
        ATTACK.format("invented_hospital"),
    ),
    "another model passes": Mutant(
        5,
        "transcript.py",
        "if header.context != start.context(cohort.params):",
        "if False:",
        ATTACK.format("other_model"),
    ),
    "another invited set passes": Mutant(
        5,
        "transcript.py",
        "if header.invited != start.invited_digest():",
        "if False:",
        ATTACK.format("other_invited_set"),
    ),
    "own header is not compared": Mutant(
        5, "client_round.py", "if live.index in headers and headers[live.index] != own:", "if False:", ONCE
    ),
    "two quorums fit": Mutant(6, "params.py", "2 * t > n + c):", "2 * t > n):", QUORUMS),
    "reveal against t - 1 acks": Mutant(
        6,
        "client_round.py",
        "if len(acks) < cohort.params.threshold:",
        "if len(acks) < cohort.params.threshold - 1:",
        QUORUMS,
    ),
    "acks of another set count": Mutant(
        6, "transcript.py", "if ack.survivors != survivors.digest:", "if False:", ATTACK.format("other_survivor_list")
    ),
    "sharing polynomial is constant": Mutant(
        7,
        "shamir.py",
        "coefficients = np.concatenate([secrets[None, :], drawn",
        "coefficients = np.concatenate([secrets[None, :], 0 * drawn",
        SHARING,
    ),
    "first honest edge is not masked": Mutant(
        8,
        "client_round.py",
        "for peer in sorted(start.invited - {live.index}):",
        "for peer in sorted(start.invited - {live.index, 1, 2} if live.index < 3 else start.invited - {live.index}):",
        VIEW,
    ),
    "sender is not compared": Mutant(
        9, "messages.py", "if message.sender != party.index:", "if False:", ATTACK.format("forged_ack")
    ),
    "vector is not compared with its header": Mutant(
        9, "server_round.py", "if hashlib.sha256(vector).digest() != signed.vector:", "if False:", MESSAGES
    ),
    "box is not compared with its hash": Mutant(
        9,
        "client_setup.py",
        "if box_hash(box) != signed_box_hash(cohort, message, receiver):",
        "if False:",
        ATTACK.format("swapped_boxes"),
    ),
    "replay in another round": Mutant(
        9, "transcript.py", "if header.round_no != start.round_no:", "if False:", ATTACK.format("replay")
    ),
    "replay in another epoch": Mutant(
        9, "transcript.py", "if header.transcript != cohort.transcript:", "if False:", MESSAGES
    ),
    "opened secrets are not checked": Mutant(
        10, "opening.py", "if opened != epoch.commitment(party, round_no, survived=survived):", "if False:", DEALER
    ),
    "unwrapped edges are not checked": Mutant(
        10,
        "opening.py",
        "if kdf.edge_tag(transcript, low, high, round_no, key) != epoch.tag(gone, peer, round_no):",
        "if False:",
        DEALER,
    ),
    "tags of two ends are not compared": Mutant(10, "server_setup.py", "    _check_edges(epoch)\n", "", DEALER),
    "the keystream begins again in every chunk": Mutant(
        11, "kernel.py", "            self._head = self._head[first:]\n", "", KERNEL
    ),
    "edge key forgets the round": Mutant(
        12, "kdf.py", 'label("edge", transcript, low, high, round_no)', 'label("edge", transcript, low, high, 0)', ONCE
    ),
    "keys stay after reveal": Mutant(12, "client_round.py", "live._keys.erase_before(round_no + 1)", "pass", ONCE),
    "keys of skipped rounds stay": Mutant(
        12, "client_round.py", "    live._keys.erase_before(start.round_no)\n", "", ONCE
    ),
    "c stays after set-up": Mutant(12, "client_setup.py", "    state.dealt.erase()\n", "", ONCE),
    "noise is not counted in the range": Mutant(13, "encoding.py", "TAIL = 8.0", "TAIL = 0.0", ENCODING),
    "overflow is not refused by the epoch": Mutant(
        13, "params.py", "> range_offered():", "> 2 * range_offered():", ENCODING
    ),
    "sums decode unsigned": Mutant(13, "encoding.py", "total.view(np.int32)", "total", ENCODING),
    "rounding is always down": Mutant(
        13, "encoding.py", "np.add(steps[:n], uniform[:n], out=steps[:n])", "pass", ENCODING
    ),
    "a flag passes as a number": Mutant(
        15, "messages.py", "type(v) is int and low", "isinstance(v, int) and low", GOLDEN
    ),
    "a bundle's flag passes as an index": Mutant(
        15, "messages.py", "if type(index) is int and", "if isinstance(index, int) and", MESSAGES
    ),
    "transcript forgets the parameters": Mutant(16, "transcript.py", "[params.digest(), rows]", "[b'', rows]", GOLDEN),
    "context forgets the layout": Mutant(
        5, "params.py", "[kind, layout.digest(), model_hash]", "[kind, b'', model_hash]", PARAMS
    ),
}

CONTROL = Mutant(0, "opening.py", "peer > gone", "peer > gone", SUM)


def one_each() -> list[str]:
    """The first mutant of every invariant."""
    first: dict[int, str] = {}
    for name, mutant in MUTANTS.items():
        first.setdefault(mutant.invariant, name)
    return list(first.values())


def _plant(mutant: Mutant, folder: Path) -> None:
    shutil.copytree(PACKAGE, folder / "cameo_protocol", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "cameo_protocol" / "secagg" / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.file}: {mutant.old!r} occurs {text.count(mutant.old)} times, not once")
    file.write_text(text.replace(mutant.old, mutant.new))


def _killed(mutant: Mutant) -> bool:
    """Whether the mutant's test turns red; anything but a failed test (an error of ours, no test found) is not."""
    import pytest

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _plant(mutant, folder)
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            sys.path.insert(0, str(folder))
            os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder)
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            options = [
                *("-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin"),
                "-x",
                "-q",
                "-p",
                "no:cacheprovider",
                "--deselect",
                f"{HERE}/{GOLDEN}::test_the_script_makes_the_stored_file",
            ]
            os._exit(int(pytest.main([*options, f"{HERE / mutant.test}"])))
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) == int(pytest.ExitCode.TESTS_FAILED)


def main(names: list[str]) -> int:
    """Test the named mutants, or all."""
    import _hypothesis_pytestplugin  # noqa: F401  imported once here, not in every child
    import cbor2  # noqa: F401
    import hypothesis.strategies  # noqa: F401
    import numpy  # noqa: F401
    import pydantic  # noqa: F401
    import pytest_timeout  # noqa: F401
    from Crypto.Cipher import AES  # noqa: F401
    from cryptography.hazmat.primitives import hpke  # noqa: F401

    if any(name.startswith("cameo_protocol") for name in sys.modules):
        raise SystemExit("the package was imported before it was mutated")
    if _killed(CONTROL):
        raise SystemExit("the control, an unchanged package, turns a test red")
    survivors = [name for name in names or MUTANTS if not _killed(MUTANTS[name])]
    for name in survivors:
        print(f"survived: {name}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
