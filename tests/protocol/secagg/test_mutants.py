"""The tests catch planted faults: one of every invariant by default, all of mutants.py with CAMEO_FULL=1."""

from __future__ import annotations

import os
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
    """14 is about traffic in Flower, tested there."""
    assert {mutant.invariant for mutant in MUTANTS.values()} == {*range(1, 17)} - {14}
