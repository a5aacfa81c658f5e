"""The tests catch planted faults: one of every invariant by default, all of mutants.py with CAMEO_FULL=1."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS, one_each

PROGRAM = Path(__file__).with_name("mutants.py")


@pytest.mark.slow
def test_every_planted_fault_turns_a_test_red() -> None:
    names = list(MUTANTS) if os.environ.get("CAMEO_FULL") else one_each()
    done = subprocess.run([sys.executable, str(PROGRAM), *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_invariant_that_a_change_of_the_core_can_break_has_a_mutant() -> None:
    """14 is about traffic in Flower; its planted fault is the control of the recorded run."""
    assert {mutant.invariant for mutant in MUTANTS.values()} == {*range(1, 17)} - {14}


def test_the_page_names_a_test_and_the_planted_faults_of_every_invariant() -> None:
    root = Path(__file__).parents[3]
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", (root / "docs" / "secure-sum.md").read_text(), re.M)
    assert [int(number) for number, *_ in rows] == list(range(1, 17))
    for number, _, tests, faults in rows:
        for name in re.findall(r"`([\w/]*test_\w+\.py)`", tests):
            assert (root / name).is_file() or Path(__file__).with_name(name).is_file(), name
        planted = {name for name, mutant in MUTANTS.items() if mutant.invariant == int(number)}
        assert set(faults.split("; ")) == planted or number == "14", number
