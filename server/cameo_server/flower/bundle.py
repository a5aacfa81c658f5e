"""The Flower app bundle of a run, built in memory: configuration and a shim. The code is what is installed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from cameo_protocol.errors import OperatorError

SERVER_APP = "cameo_server.app:app"
RUN_KEYS = ("plan", "plan-sha256", "run", "home")
_SHIM = "cameo_run.py"

_PYPROJECT = """\
[project]
name = "cameo-run"
version = "{version}"
description = "Imports the installed ServerApp of cameo-fl"
dependencies = ["flwr=={flwr}"]
[tool.flwr.app]
publisher = "cameo"
[tool.flwr.app.components]
serverapp = "cameo_run:app"
clientapp = "cameo_run:none"
[tool.flwr.app.config]
{config}
"""
# Flower wants a ClientApp in every bundle. This one answers nothing: hospitals run the agent they installed.
_CODE = """\
from flwr.clientapp import ClientApp
from {module} import {name} as app

none = ClientApp()
"""


def build_bundle(conf: Path, *, server_app: str = SERVER_APP) -> bytes:
    """A Flower app bundle (FAB) with conf/**/*.yaml and a shim that imports `server_app` ("module:name").

    The same files give the same bytes. It declares the run configuration keys `RUN_KEYS`, all strings. A conf folder
    that cannot be read or packed is an `OperatorError`.
    """
    from flwr.cli.build import build_fab_from_files

    module, name = server_app.split(":")
    config = "\n".join(f'{key} = ""' for key in RUN_KEYS)
    pyproject = _PYPROJECT.format(version=version("flwr"), flwr=version("flwr"), config=config)
    files: dict[str, bytes | Path] = {
        "pyproject.toml": pyproject.encode(),
        _SHIM: _CODE.format(module=module, name=name).encode(),
    }
    try:
        for path in sorted(conf.rglob("*.yaml")):
            files[f"conf/{path.relative_to(conf).as_posix()}"] = path.read_bytes()
        fab, _ = build_fab_from_files(files)
    except (OSError, ValueError) as error:
        raise OperatorError(
            "bundle-unbuildable", what=f"{conf} cannot be packed for Flower: {error}", do=f"check the files in {conf}"
        ) from None
    return fab
