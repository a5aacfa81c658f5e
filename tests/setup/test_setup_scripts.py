"""scripts/*.sh and .ci/run: find Python, pick the build of torch, repeat quickly, fail clearly.

They run in a pretend checkout (its path has spaces) with a pretend Python: no network, milliseconds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = [*sorted((REPO / "scripts").glob("*.sh")), REPO / ".ci/run"]
TOOLS = (
    "bash",
    "sh",
    "dirname",
    "sed",
    "grep",
    "tail",
    "tr",
    "cat",
    "mktemp",
    "sleep",
    "mv",
    "rm",
    "cp",
    "mkdir",
    "tee",
)

# Makes "virtual environments" that are copies of itself, notes every pip call, and is the real Python otherwise.
FAKE_PYTHON = r"""#!/bin/bash
target="${!#}"
case "$*" in
    *"-m venv"*)
        rm -rf "$target" && mkdir -p "$target/bin" && cp "$0" "$target/bin/python"
        printf 'command = %s -m venv %s\n' "$0" "$target" >"$target/pyvenv.cfg" ;;
    *"-m pip --version"*) ;;
    *"-m pip install --dry-run"*) echo "asked $target" >>"$FAKE_LOG"; cat "$FAKE_REPORT" ;;
    *"-m pip install"*)
        echo "$@" >>"$FAKE_LOG"; echo "Collecting everything"; sleep "${FAKE_SLEEP:-0}"
        [ -z "${FAKE_HANG:-}" ] || exec sleep 30
        [ -z "${FAKE_BREAK:-}" ] || { echo "ERROR: No space left on device"; exit 1; } ;;
    *"import ensurepip"*) exit "${FAKE_NO_VENV:-0}" ;;
    *) exec @REAL@ "$@" ;;
esac
"""


def executable(path: Path, text: str) -> Path:
    """Write a script that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@dataclass(frozen=True)
class Checkout:
    """A checkout at `root`; commands are found in `bins` (in order) and nowhere else."""

    root: Path
    bins: tuple[Path, ...]
    log: Path
    report: Path

    def environment(self, **extra: str) -> dict[str, str]:
        """What a script of this checkout sees; `extra` is added."""
        path = ":".join(map(str, self.bins))
        return {"PATH": path, "FAKE_LOG": str(self.log), "FAKE_REPORT": str(self.report), **extra}

    def start(self, command: str, **extra: str) -> subprocess.Popen[str]:
        """Start a bash command line in the checkout."""
        script = f"set -euo pipefail; {command}"
        return subprocess.Popen(
            ["/bin/bash", "-c", script],
            cwd=self.root,
            env=self.environment(**extra),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, command: str, **extra: str) -> tuple[int, str]:
        """(exit status, everything printed) of a bash command line in the checkout."""
        process = self.start(command, **extra)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def bootstrap(self, kind: str = "base", **extra: str) -> tuple[int, str]:
        """Run the set-up as demo.sh and test.sh do."""
        return self.run(f". scripts/bootstrap.sh; bootstrap {kind}", **extra)

    def pip_calls(self) -> list[str]:
        """The pip calls so far, oldest first."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def pip_would_get(self, version: str | None, *needs: str) -> None:
        """Let pip's dry run answer with this build of torch; None: it is there already."""
        install = [] if version is None else [{"metadata": {"version": version, "requires_dist": list(needs)}}]
        self.report.write_text(json.dumps({"install": install}))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout with one working pretend Python on PATH, for which pip would get a CPU build of torch."""
    folder, python = tmp_path, "python3.11"
    root = folder / "a check out"
    (root / "scripts").mkdir(parents=True)
    for script in (REPO / "scripts").glob("*.sh"):
        shutil.copy(script, root / "scripts")
    (root / ".ci").mkdir()
    shutil.copy(REPO / ".ci/run", root / ".ci")
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (root / "constraints.txt").write_text("numpy==2.0\ntorch==2.13.0\n")
    tools, bins = folder / "tools", folder / "bin"
    tools.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found is not None:
            (tools / tool).symlink_to(found)
    executable(tools / "uname", "#!/bin/sh\necho Linux\n")
    executable(bins / python, FAKE_PYTHON.replace("@REAL@", f"'{os.path.realpath(sys.executable)}'"))
    checkout = Checkout(root, (bins, tools), folder / "pip.log", folder / "report.json")
    checkout.pip_would_get("2.13.0+cpu", "filelock")
    return checkout


def test_the_first_run_installs_the_pins_and_the_second_does_nothing(checkout: Checkout) -> None:
    status, output = checkout.bootstrap()
    assert status == 0, output
    asked, torch, tools, package = checkout.pip_calls()
    assert asked == "asked torch==2.13.0"
    assert "--no-deps torch==2.13.0" in torch
    assert "hatchling editables" in tools
    assert package.endswith(f"-c {checkout.root}/constraints.txt --no-build-isolation -e {checkout.root}")
    assert "Making .venv" in output
    assert "done in" in output
    start = time.monotonic()
    assert checkout.bootstrap() == (0, "")
    assert time.monotonic() - start < 1
    assert len(checkout.pip_calls()) == 4


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_is_installed(checkout: Checkout, changed: str) -> None:
    checkout.bootstrap()
    before = len(checkout.pip_calls())
    with (checkout.root / changed).open("a") as file:
        file.write("\n# changed\n")
    assert checkout.bootstrap()[0] == 0
    assert len(checkout.pip_calls()) > before


def test_the_tests_add_their_tools_and_the_demo_leaves_them(checkout: Checkout) -> None:
    checkout.bootstrap("base")
    assert checkout.bootstrap("dev")[0] == 0
    assert checkout.pip_calls()[-1].endswith(f"-e {checkout.root}[dev]")
    before = checkout.pip_calls()
    assert checkout.bootstrap("base") == (0, "")
    assert checkout.pip_calls() == before


def test_a_moved_checkout_is_made_anew(checkout: Checkout) -> None:
    checkout.bootstrap()
    moved = Checkout(checkout.root.with_name("moved here"), checkout.bins, checkout.log, checkout.report)
    checkout.root.rename(moved.root)
    status, output = moved.bootstrap()
    assert status == 0
    assert "making it anew" in output
    assert str(moved.root) in (moved.root / ".venv/pyvenv.cfg").read_text()


def test_a_half_made_venv_is_made_anew(checkout: Checkout) -> None:
    (checkout.root / ".venv/bin").mkdir(parents=True)
    executable(checkout.root / ".venv/bin/python", "#!/bin/sh\nexit 127\n")
    status, output = checkout.bootstrap()
    assert status == 0
    assert "making it anew" in output


def test_two_at_once_set_up_once(checkout: Checkout) -> None:
    first, second = (checkout.start(". scripts/bootstrap.sh; bootstrap base", FAKE_SLEEP="0.5") for _ in range(2))
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert sum("-e" in call.split() for call in checkout.pip_calls()) == 1
    assert sum("waiting for it" in output for output in outputs) == 1


def test_a_python_that_does_not_run_is_passed_over(checkout: Checkout, tmp_path: Path) -> None:
    executable(tmp_path / "shims/python3.11", "#!/bin/sh\necho 'pyenv: not found' >&2\nexit 127\n")
    shimmed = Checkout(checkout.root, (tmp_path / "shims", *checkout.bins), checkout.log, checkout.report)
    status, output = shimmed.bootstrap()
    assert status == 0, output
    assert str(tmp_path / "bin/python3.11") in output


def test_no_python_is_an_error_that_says_what_to_install(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "bin/python3.11").unlink()
    executable(tmp_path / "bin/python3", "#!/bin/sh\necho 3.9\n")
    status, output = checkout.bootstrap()
    assert status == 2
    assert "error: python-missing" in output
    assert "(found only: 3.9)" in output
    assert "apt-get install python3.11 python3.11-venv" in output
    assert not (checkout.root / ".venv").exists()


def test_a_python_without_venv_is_an_error_that_names_the_package(checkout: Checkout) -> None:
    status, output = checkout.bootstrap(FAKE_NO_VENV="1")
    assert status == 2
    assert "error: python-without-venv" in output
    assert "-venv; then run this again" in output


def test_a_chosen_python_must_work(checkout: Checkout, tmp_path: Path) -> None:
    status, output = checkout.bootstrap(CAMEO_PYTHON=str(tmp_path / "no such"))
    assert status == 2
    assert "error: python-unusable" in output
    good = executable(tmp_path / "mine/py", (tmp_path / "bin/python3.11").read_text())
    status, output = checkout.bootstrap(CAMEO_PYTHON=str(good))
    assert status == 0
    assert f"Making .venv with {good}" in output


def torch_call(checkout: Checkout, **extra: str) -> str | None:
    """The pip call that installed torch, or None."""
    status, output = checkout.bootstrap(**extra)
    assert status == 0, output
    calls = [call for call in checkout.pip_calls() if call.endswith(" torch==2.13.0") and "asked" not in call]
    return calls[0] if calls else None


def test_a_cuda_build_is_replaced_by_the_cpu_build(checkout: Checkout) -> None:
    checkout.pip_would_get("2.13.0", "filelock", "nvidia-cublas==13.0; platform_system == 'Linux'")
    call = torch_call(checkout)
    assert call is not None
    assert "--index-url https://download.pytorch.org/whl/cpu " in call


def test_a_cpu_build_comes_from_the_usual_index(checkout: Checkout) -> None:
    call = torch_call(checkout)
    assert call is not None
    assert "--index-url" not in call


def test_torch_that_is_there_is_left(checkout: Checkout) -> None:
    checkout.pip_would_get(None)
    assert torch_call(checkout) is None


def test_a_mirror_comes_before_the_public_index(checkout: Checkout) -> None:
    checkout.pip_would_get("2.13.0", "nvidia-cublas==13.0")
    call = torch_call(checkout, TORCH_INDEX_URL="https://mirror.example/cpu")
    assert call is not None
    assert "--index-url https://mirror.example/cpu " in call


def test_the_gpu_build_is_taken_when_asked_for_also_later(checkout: Checkout) -> None:
    assert checkout.bootstrap()[0] == 0
    checkout.log.unlink()
    call = torch_call(checkout, CAMEO_GPU="1")
    assert call is not None
    assert "--force-reinstall" in call
    assert "--index-url" not in call
    assert not any(call.startswith("asked") for call in checkout.pip_calls())


def test_an_unreadable_answer_of_pip_is_an_error(checkout: Checkout) -> None:
    checkout.report.write_text("not json")
    status, output = checkout.bootstrap()
    assert status == 2
    assert "error: torch-unknown" in output


def test_pip_in_trouble_shows_its_last_lines_and_what_to_do(checkout: Checkout) -> None:
    status, output = checkout.bootstrap(FAKE_BREAK="1")
    assert status == 2
    assert "  | ERROR: No space left on device" in output
    assert "error: setup-failed" in output
    assert "  do: " in output
    assert checkout.bootstrap()[0] == 0, "the same command again goes on"


def test_an_interruption_ends_pip_and_leaves_no_stamp(checkout: Checkout) -> None:
    process = checkout.start(". scripts/bootstrap.sh; bootstrap base", FAKE_HANG="1")
    deadline = time.monotonic() + 20
    while not any("torch" in call for call in checkout.pip_calls()[1:]) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; run the same command again" in output
    assert not (checkout.root / ".venv/cameo-stamp").exists()
    assert checkout.bootstrap()[0] == 0, "the lock went with the process"


def with_tools(checkout: Checkout, ruff: str = "exit 0", pytest_line: str = "== 3 passed in 0.10s ==") -> None:
    """Set up the checkout and put pretend tools into its .venv."""
    assert checkout.bootstrap("dev")[0] == 0
    bin_dir = checkout.root / ".venv/bin"
    executable(bin_dir / "ruff", f"#!/bin/sh\n{ruff}\n")
    for tool in ("mypy", "lint-imports", "cameo"):
        executable(bin_dir / tool, f'#!/bin/sh\necho "{tool} ran: $*"\n')
    fake = (bin_dir / "python").read_text()
    ran = f'*"-m pytest"*) echo "pytest ran: $*"; echo "{pytest_line}" ;;\n'
    executable(bin_dir / "python", fake.replace('case "$*" in\n', f'case "$*" in\n{ran}', 1))


def test_every_check_runs_and_one_failure_fails_the_whole(checkout: Checkout) -> None:
    with_tools(checkout, ruff="exit 1")
    status, output = checkout.run("scripts/test.sh")
    assert status == 1
    assert "pytest ran: -m pytest -n 2" in output
    summary = output.split("── summary")[1]
    assert re.findall(r"^(\S.*?)  +(ok|FAILED)", summary, re.M) == [
        ("ruff check", "FAILED"), ("ruff format", "FAILED"), ("mypy --strict", "ok"),
        ("import walls", "ok"), ("pytest", "ok"),
    ]  # fmt: skip


def test_arguments_go_to_pytest_alone(checkout: Checkout) -> None:
    with_tools(checkout, ruff="exit 1")
    status, output = checkout.run("scripts/test.sh tests/lab -k 'two words'")
    assert status == 0
    assert "pytest ran: -m pytest tests/lab -k two words" in output
    assert "mypy" not in output


def test_the_build_machine_ends_with_the_closing_line_and_keeps_the_status(checkout: Checkout) -> None:
    with_tools(checkout, ruff="exit 1", pytest_line="===== 1 failed, 3 passed in 12.34s (0:00:12) =====")
    status, output = checkout.run(".ci/run")
    assert status == 1
    assert output.splitlines()[-1] == "===== 1 failed, 3 passed in 12.34s (0:00:12) ====="


def test_the_demo_passes_its_arguments_on(checkout: Checkout) -> None:
    with_tools(checkout)
    assert checkout.run("scripts/demo.sh --out 'my report'") == (0, "cameo ran: demo --out my report\n")


def test_an_installation_says_where_the_commands_are(checkout: Checkout) -> None:
    status, output = checkout.run("scripts/install.sh")
    assert status == 0
    assert f'export PATH="{checkout.root}/.venv/bin:$PATH"' in output


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script: Path) -> None:
    subprocess.run(["/bin/bash", "-n", script], check=True)
    assert script.name == "bootstrap.sh" or os.access(script, os.X_OK)


def test_every_requirement_has_a_pin_that_fits() -> None:
    lines = [line for line in (REPO / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(pins) == len(lines)
    assert not [line for line in lines if "+" in line], "a local version ties the pin to one index"
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"], "hatchling", "editables"]:
        need = Requirement(text)
        assert pins[canonicalize_name(need.name)] in need.specifier, text
