"""The two ways to keep a node running, written into its folder: a hardened systemd unit and a compose file."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import sysconfig
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template

from cameo_client.home import PUBLIC, NodeConfig, NodeHome, load_config, write_file
from cameo_protocol.errors import OperatorError

UNIT, COMPOSE = "cameo-node.service", "compose.yaml"


def write_service_files(home: NodeHome) -> list[Path]:
    """Write those of the two that are not there; returns their paths."""
    config, written = load_config(home), []
    for name, text in ((UNIT, unit(home, config)), (COMPOSE, compose(home, config))):
        path = home.root / name
        if not path.exists():
            write_file(path, text.encode(), PUBLIC)
        written.append(path)
    return written


def unit(home: NodeHome, config: NodeConfig) -> str:
    """The systemd unit of this node, for the user who runs this."""
    return _template(UNIT).substitute(
        site=config.site,
        user=_user(),
        command=_unit_word(str(command())).replace("$", "$$"),
        home=home.root,
        quoted_home=_unit_word(str(home.root)),
        started_home=_unit_word(str(home.root)).replace("$", "$$"),
    )


def compose(home: NodeHome, config: NodeConfig) -> str:
    """The compose file of this node: its folder to write, its data source to read, nothing else."""
    source = config.data
    paths = [source.path if "://" not in source.path else None, source.mapping, source.password_file]
    reads = [path for path in paths if path is not None and path.startswith("/")]
    mounts = [f"      - {{type: bind, source: {path}, target: {path}, read_only: true}}" for path in map(_yaml, reads)]
    return _template(COMPOSE).substitute(
        image=_yaml(f"cameo-node:{version('cameo-fl')}"),
        checkout=_yaml(str(Path(__file__).resolve().parents[2])),
        home=_yaml(str(home.root)),
        owner=_yaml(f"{os.getuid()}:{os.getgid()}"),
        mounts="\n".join(mounts),
    )


def command() -> Path:
    """Where `cameo-node` of this installation is."""
    here = Path(sysconfig.get_path("scripts")) / "cameo-node"
    found = str(here) if here.exists() else shutil.which("cameo-node")
    if found is None:
        raise OperatorError("command-missing", what=f"{here} is not there", do="install it again: scripts/install.sh")
    return Path(found)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name: systemd takes the number
        return str(os.getuid())


def _template(name: str) -> Template:
    return Template((files("cameo_client") / "units" / name).read_text(encoding="utf-8"))


def _unit_word(text: str) -> str:
    """One word of a unit file, quoted; the caller doubles $ in a command line. Source: systemd.syntax(7)."""
    if any(ord(character) < 32 for character in text):
        raise OperatorError("path-unusable", what="a path with a control character", do="choose another folder")
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"'


def _yaml(text: str) -> str:
    """One YAML scalar; compose would fill in what follows a $."""
    return json.dumps(text).replace("$", "$$")
