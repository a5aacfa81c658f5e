"""The peak of a child is its own, not that of the large process that started it."""

from __future__ import annotations

import os
import subprocess
import sys

from cameo_lab.bench.peak import peak_mb


def test_the_peak_grows_with_what_is_held() -> None:
    held = os.urandom(64 << 20)
    assert peak_mb() > 64
    del held


def test_a_small_child_of_a_large_process_is_small() -> None:
    held = bytearray(os.urandom(300 << 20))
    code = "from cameo_lab.bench.peak import peak_mb; print(peak_mb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, close_fds=False)
    assert float(done.stdout) < 150
    assert len(held) == 300 << 20
