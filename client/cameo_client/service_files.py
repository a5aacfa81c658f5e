"""The two ways to keep a node running, written into its folder: a hardened systemd unit and a compose file."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import sysconfig
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import parse_qsl, urlsplit

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
    own = (_unit_word(f"-{home.root / name}") for name in (UNIT, COMPOSE))
    return _template(UNIT).substitute(
        site=config.site,
        install=install_line(home.root / UNIT),
        user=_user(),
        command=_unit_word(str(command())).replace("$", "$$"),
        quoted_home=_unit_word(str(home.root)),
        own_files=" ".join(own),
        started_home=_unit_word(str(home.root)).replace("$", "$$"),
    )


def install_line(unit: Path) -> str:
    """What an administrator types. systemd gets a copy: a unit that the node's user can change would make it root."""
    return f"sudo install -m 644 {shell_word(unit)} /etc/systemd/system/ && sudo systemctl enable --now {unit.stem}"


def compose(home: NodeHome, config: NodeConfig) -> str:
    """The compose file of this node: its folder to write, its data source to read, nothing else."""
    reads = [str(home.root / COMPOSE), *_files_read(home, config)]
    mounts = [f"      - {{type: bind, source: {path}, target: {path}, read_only: true}}" for path in map(_yaml, reads)]
    groups = sorted({*os.getgroups()} - {os.getgid()})
    variable = config.data.password_env
    return _template(COMPOSE).substitute(
        file=shell_word(home.root / COMPOSE),
        project=_yaml(f"cameo-node-{config.site.replace('.', '_')}"),
        image=_yaml(f"cameo-node:{version('cameo-fl')}"),
        checkout=_yaml(str(Path(__file__).resolve().parents[2])),
        home=_yaml(str(home.root)),
        environment=f"\n      {variable}:  # from the shell that runs compose, or a file .env beside this one"
        if variable
        else "",
        owner=_yaml(f"{os.getuid()}:{os.getgid()}"),
        # Not an empty list: Compose 2.26 refuses it as soon as a second file is given.
        groups=f"\n    group_add: {json.dumps([str(group) for group in groups])}" if groups else "",
        mounts="\n".join(mounts),
    )


def _files_read(home: NodeHome, config: NodeConfig) -> list[str]:
    """What the node reads outside its folder, also what a database's address names, such as sslrootcert."""
    source = config.data
    named = [value for _, value in parse_qsl(urlsplit(source.path).query)] if "://" in source.path else [source.path]
    named += [path for path in (source.mapping, source.password_file, config.kek_file) if path is not None]
    return [path for path in dict.fromkeys(named) if path.startswith("/") and not Path(path).is_relative_to(home.root)]


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
    plain = _one_line(text).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"'


def shell_word(path: Path) -> str:
    """A path as one word of a shell's command line."""
    return shlex.quote(_one_line(str(path)))


def _one_line(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise OperatorError("path-unusable", what="a path with a control character", do="choose another folder")
    return text


def _yaml(text: str) -> str:
    """One YAML scalar; compose would fill in what follows a $."""
    return json.dumps(text).replace("$", "$$")
