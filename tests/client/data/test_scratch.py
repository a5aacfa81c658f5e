"""Clinical rows that a read writes down: in the node's home, for its user alone, and gone after a kill too."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fhir_kit import CATALOGUE, LABELS, source, write

from cameo_client.data.fhir import as_omop
from cameo_client.data.hospital import inspect
from cameo_client.data.scratch import private_folder, sweep
from cameo_protocol.errors import OperatorError

HOLD = """
import sys, time
from pathlib import Path
from cameo_client.data.scratch import private_folder
with private_folder(Path(sys.argv[1])) as folder:
    (folder / "person").write_text("4711")
    print(folder, flush=True)
    time.sleep(60)
"""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_a_killed_read_left_is_removed_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    words = [sys.executable, "-c", HOLD, str(scratch)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as read:
        assert read.stdout is not None
        left = Path(read.stdout.readline().strip())
        assert (mode(scratch), mode(left)) == (0o700, 0o700)
        sweep(scratch)
        with private_folder(scratch) as own:
            assert left.exists()
            assert own.parent == left.parent == scratch
        assert not own.exists()
        read.send_signal(signal.SIGKILL)
    assert (left / "person").read_text() == "4711"
    sweep(scratch)
    assert list(scratch.iterdir()) == []


def test_the_next_read_sweeps_too_and_so_does_a_read_that_fails(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    (scratch / "read-old" / "export").mkdir(parents=True)
    with pytest.raises(RuntimeError), private_folder(scratch) as folder:
        assert list(scratch.iterdir()) == [folder]
        raise RuntimeError
    assert list(scratch.iterdir()) == []


def test_the_rows_of_an_export_lie_in_the_home_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export, scratch, temporary = write(tmp_path / "export"), tmp_path / "scratch", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with as_omop(source(export), scratch) as converted:
        assert scratch in Path(str(converted.source.path)).parents
        assert list(temporary.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))  # nothing is written there at all
    inspect(source(export), CATALOGUE, LABELS, scratch=scratch)
    assert list(scratch.iterdir()) == []


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(OperatorError, match="disk-write"), private_folder(tmp_path / "home" / "scratch"):
        pass
