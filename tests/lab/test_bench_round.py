"""The stock benchmark starts a whole stock federation, measures it, and leaves nothing behind."""

import os
import tempfile
from pathlib import Path

import psutil
import pytest

from cameo_lab.bench import round as bench
from cameo_protocol.errors import OperatorError


def children() -> set[str]:
    found = psutil.Process().children(recursive=True)
    return {" ".join(p.cmdline()) for p in found if p.status() != psutil.STATUS_ZOMBIE}


@pytest.mark.slow
@pytest.mark.skipif("CAMEO_SLOW_TESTS" not in os.environ, reason="20 s; set CAMEO_SLOW_TESTS=1")
def test_it_measures_a_stock_federation_and_cleans_up() -> None:
    before = set(Path(tempfile.gettempdir()).glob("cameo-bench-*"))
    (seconds,) = bench.stock_rounds(rounds=1, nodes=2, timeout_s=150)
    assert 1 < seconds < 120
    assert not {command for command in children() if "flower-" in command}
    assert set(Path(tempfile.gettempdir()).glob("cameo-bench-*")) <= before


def test_one_that_takes_too_long_says_so_and_cleans_up() -> None:
    with pytest.raises(OperatorError) as error:
        bench.stock_rounds(rounds=1, nodes=2, timeout_s=0.5)
    assert error.value.code == "bench-failed"
    assert not {command for command in children() if "flower-" in command}


def test_the_app_is_stock() -> None:
    assert "cameo" not in bench.APP.read_text().split('"""', 2)[2].lower()
