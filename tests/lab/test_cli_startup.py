"""Both command lines start quickly, because nothing heavy is imported before a command needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

MAINS = {"cameo": "cameo_lab.cli", "cameo-node": "cameo_client.cli"}
HEAVY = ("torch", "opacus", "flwr", "polars", "sklearn", "scipy", "numpy", "opendp", "dp_accounting", "hydra", "rich")


def seconds(*arguments: str) -> float:
    """CPU seconds of a fresh interpreter: user and system, of the process itself."""
    script = (
        "import resource, runpy, sys, atexit, os\n"
        "def told():\n"
        "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    os.write(2, f'CPU {used.ru_utime + used.ru_stime}\\n'.encode())\n"
        "atexit.register(told)\n"
    ) + arguments[0]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    return float(done.stderr.rpartition("CPU ")[2])


@pytest.mark.parametrize("name", MAINS)
def test_help_costs_little_more_than_the_interpreter(name: str) -> None:
    help_of = f"sys.argv = ['{name}', '--help']\nfrom {MAINS[name]} import main\nmain()"
    bare = min(seconds("") for _ in range(3))
    ours = min(seconds(help_of) for _ in range(3))
    # 0.3 s is the promise on an idle machine; relative to a bare interpreter it also holds on a slow one.
    assert ours < max(0.3, 25 * bare)


@pytest.mark.parametrize("name", MAINS)
def test_nothing_heavy_is_imported_for_help(name: str) -> None:
    script = (
        f"import sys\nsys.argv = ['{name}', '--help']\nfrom {MAINS[name]} import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.rstrip().endswith("LOADED []")
