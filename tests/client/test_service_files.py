"""The systemd unit and the compose file of a node: sound, hardened, and safe against odd names of folders."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from cameo_client.home import DataConfig, NodeConfig, NodeHome, load_config
from cameo_client.membership import init_node
from cameo_client.service_files import command, compose, install_line, unit, write_service_files
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


def home_at(folder: Path, *, site: str = "hospital-a", **data: Any) -> NodeHome:
    home = NodeHome(folder)
    source = {"kind": "table", "path": "/data/x.csv", "mapping": "heart", **data}
    init_node(home, site=site, data=DataConfig.model_validate(source), now=NOW)
    return home


def service_of(home: NodeHome) -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load(compose(home, load_config(home)))["services"]["cameo-node"]
    return service


def entries(text: str) -> dict[str, str]:
    rows = [row for row in text.splitlines() if "=" in row and not row.startswith("#")]
    return dict(row.split("=", 1) for row in rows)


def test_the_unit_starts_this_node_and_little_else_is_allowed(tmp_path: Path) -> None:
    home = home_at(tmp_path / "node")
    found = entries(unit(home, load_config(home)))
    assert found["ExecStart"] == f'"{command()}" start --home "{home.root}"'
    assert found["ReadWritePaths"] == f'"{home.root}"'
    assert found.items() >= HARDENED.items()
    assert found["ReadOnlyPaths"] == " ".join(
        f'"-{home.root / name}"' for name in ("cameo-node.service", "compose.yaml")
    )
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


@pytest.mark.parametrize("text", [unit, compose])
def test_a_folder_name_that_no_unit_can_hold_is_refused(
    tmp_path: Path, text: Callable[[NodeHome, NodeConfig], str]
) -> None:
    home = home_at(tmp_path / "a\nb")
    with pytest.raises(OperatorError, match="path-unusable"):
        text(home, load_config(home))


def test_systemd_is_given_a_copy_that_only_root_may_change(tmp_path: Path) -> None:
    """Enabled in place, a node that was broken into could write User=root into its own unit."""
    home = home_at(tmp_path / ODD)
    line = install_line(home.root / "cameo-node.service")
    copy, start = line.split(" && ")
    assert shlex.split(copy)[:4] == ["sudo", "install", "-m", "644"]
    assert shlex.split(copy)[4:] == [str(home.root / "cameo-node.service"), "/etc/systemd/system/"]
    assert start == "sudo systemctl enable --now cameo-node"
    assert f"#   {line}\n" in unit(home, load_config(home))


@pytest.mark.parametrize("name", ["node", ODD])
def test_compose_mounts_the_folder_and_the_source_and_nothing_else(tmp_path: Path, name: str) -> None:
    home = home_at(tmp_path / name, mapping=str(tmp_path / "own.yaml"))
    service = service_of(home)
    root, own, mapping = (
        str(path).replace("$", "$$") for path in (home.root, home.root / "compose.yaml", tmp_path / "own.yaml")
    )
    assert service["volumes"] == [
        {"type": "bind", "source": root, "target": root},
        {"type": "bind", "source": own, "target": own, "read_only": True},
        {"type": "bind", "source": "/data/x.csv", "target": "/data/x.csv", "read_only": True},
        {"type": "bind", "source": mapping, "target": mapping, "read_only": True},
    ]
    assert service["command"][-3:] == ["start", "--home", root]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["user"] == f"{os.getuid()}:{os.getgid()}"


@pytest.mark.parametrize(("groups", "added"), [([7, 5, os.getgid()], ["5", "7"]), ([os.getgid()], None)])
def test_a_source_that_a_group_reads_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: list[int], added: list[str] | None
) -> None:
    """None, not []: Compose refuses an empty list as soon as a second file is given."""
    monkeypatch.setattr(os, "getgroups", lambda: groups)
    assert service_of(home_at(tmp_path / "node")).get("group_add") == added


def test_a_container_is_there_after_a_restart_of_the_machine_and_ends_its_round(tmp_path: Path) -> None:
    service = service_of(home_at(tmp_path / "node"))
    assert service["restart"] == "unless-stopped", "on-failure stays down when Docker itself was stopped"
    assert service["stop_grace_period"] == "60s"
    assert service["network_mode"] == "host", "the page and a local database are on this machine's loopback"


def test_nodes_of_one_machine_are_projects_of_their_own(tmp_path: Path) -> None:
    home = home_at(tmp_path / "node", site="hospital.a")
    assert yaml.safe_load(compose(home, load_config(home)))["name"] == "cameo-node-hospital_a", "compose takes no dot"


def test_the_image_is_built_from_what_the_checkout_holds(tmp_path: Path) -> None:
    home = home_at(tmp_path / "node")
    build = service_of(home)["build"]
    checkout = Path(build["context"])
    copied = [row.split()[1:-1] for row in build["dockerfile_inline"].splitlines() if row.startswith("COPY")]
    assert all((checkout / name).exists() for names in copied for name in names)
    assert "chmod -R a+rX /opt/cameo &&" in build["dockerfile_inline"], "a checkout that only its owner reads"


def test_a_database_is_not_mounted_but_what_its_address_names_is(tmp_path: Path) -> None:
    url = "postgresql://reader@db.example.org/cdm?sslmode=verify-full&sslrootcert=/etc/ssl/db-ca.pem"
    home = home_at(tmp_path / "node", kind="omop", path=url, mapping="cardiometabolic-omop", password_env="DB")
    service = service_of(home)
    assert url not in compose(home, load_config(home))
    assert [volume["source"] for volume in service["volumes"][2:]] == ["/etc/ssl/db-ca.pem"]
    assert service["environment"]["DB"] is None, "without a value: taken from where compose runs"


def test_a_key_on_another_volume_is_mounted_and_one_in_the_folder_not_twice(tmp_path: Path) -> None:
    home = home_at(tmp_path / "node")
    for place, mounted in ((Path("/mnt/keys/kek.key"), ["/mnt/keys/kek.key"]), (home.root / "keys" / "kek.key", [])):
        config = load_config(home).model_copy(update={"kek_file": str(place)})
        service = yaml.safe_load(compose(home, config))["services"]["cameo-node"]
        assert [volume["source"] for volume in service["volumes"][3:]] == mounted


def test_files_that_are_there_are_left_as_they_are(tmp_path: Path) -> None:
    home = home_at(tmp_path / "node")
    first, second = write_service_files(home)
    first.write_text("ours")
    assert write_service_files(home) == [first, second]
    assert first.read_text() == "ours"
