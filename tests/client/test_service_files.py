"""The systemd unit and the compose file of a node: sound, hardened, and safe against odd names of folders."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from cameo_client.home import DataConfig, NodeHome, load_config
from cameo_client.membership import init_node
from cameo_client.service_files import command, compose, unit, write_service_files
from cameo_protocol.errors import OperatorError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ODD = 'a "node" at 50% $HOME\\x'
HARDENED = {
    "ProtectSystem": "strict",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "PrivateTmp": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "SystemCallFilter": "@system-service",
    "UMask": "0077",
}


def home_at(folder: Path, **data: Any) -> NodeHome:
    home = NodeHome(folder)
    source = {"kind": "table", "path": "/data/x.csv", "mapping": "heart", **data}
    init_node(home, site="hospital-a", data=DataConfig.model_validate(source), now=NOW)
    return home


def entries(text: str) -> dict[str, str]:
    rows = [row for row in text.splitlines() if "=" in row and not row.startswith("#")]
    return dict(row.split("=", 1) for row in rows)


def test_the_unit_starts_this_node_and_little_else_is_allowed(tmp_path: Path) -> None:
    home = home_at(tmp_path / "node")
    found = entries(unit(home, load_config(home)))
    assert found["ExecStart"] == f'"{command()}" start --home "{home.root}"'
    assert found["ReadWritePaths"] == f'"{home.root}"'
    assert found.items() >= HARDENED.items()
    assert "FLWR_TELEMETRY_ENABLED=0" in found["Environment"]
    assert found["RestartPreventExitStatus"] == "2 4 5", "a refused certificate is not tried for ever"


@pytest.mark.parametrize("name", ["node", "a node", ODD])
def test_systemd_takes_the_unit(tmp_path: Path, name: str) -> None:
    home = home_at(tmp_path / name)
    text = unit(home, load_config(home))
    if name == ODD:
        assert entries(text)["ExecStart"].endswith('a \\"node\\" at 50%% $$HOME\\\\x"')
        assert entries(text)["ReadWritePaths"].endswith('a \\"node\\" at 50%% $HOME\\\\x"')
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd-analyze on this machine")
    path = tmp_path / "cameo-node.service"
    path.write_text(text)
    done = subprocess.run([verify, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "cameo-node.service" in line]
    assert complaints == [], done.stderr


def test_a_folder_name_that_no_unit_can_hold_is_refused(tmp_path: Path) -> None:
    home = home_at(tmp_path / "a\nb")
    with pytest.raises(OperatorError, match="path-unusable"):
        unit(home, load_config(home))


@pytest.mark.parametrize("name", ["node", ODD])
def test_compose_mounts_the_folder_and_the_source_and_nothing_else(tmp_path: Path, name: str) -> None:
    home = home_at(tmp_path / name, mapping=str(tmp_path / "own.yaml"))
    service = yaml.safe_load(compose(home, load_config(home)))["services"]["cameo-node"]
    root = str(home.root).replace("$", "$$")  # compose takes the doubled sign for one
    assert service["volumes"] == [
        {"type": "bind", "source": root, "target": root},
        {"type": "bind", "source": "/data/x.csv", "target": "/data/x.csv", "read_only": True},
        {"type": "bind", "source": str(tmp_path / "own.yaml"), "target": str(tmp_path / "own.yaml"), "read_only": True},
    ]
    assert service["command"][-3:] == ["start", "--home", root]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["user"] == f"{os.getuid()}:{os.getgid()}"


def test_the_image_is_built_from_what_the_checkout_holds(tmp_path: Path) -> None:
    home = home_at(tmp_path / "node")
    build = yaml.safe_load(compose(home, load_config(home)))["services"]["cameo-node"]["build"]
    checkout = Path(build["context"])
    copied = [row.split()[1:-1] for row in build["dockerfile_inline"].splitlines() if row.startswith("COPY")]
    assert all((checkout / name).exists() for names in copied for name in names)


def test_a_database_is_not_mounted(tmp_path: Path) -> None:
    url = "postgresql://reader@db.example.org/cdm"
    home = home_at(tmp_path / "node", kind="omop", path=url, mapping="cardiometabolic-omop", password_env="DB")
    assert url not in compose(home, load_config(home))


def test_files_that_are_there_are_left_as_they_are(tmp_path: Path) -> None:
    home = home_at(tmp_path / "node")
    first, second = write_service_files(home)
    first.write_text("ours")
    assert write_service_files(home) == [first, second]
    assert first.read_text() == "ours"
