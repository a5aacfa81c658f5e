"""What we stand on inside Flower 1.41.0. Red after an upgrade: read the module that the test names, then Flower."""

import inspect
import os
import subprocess
import sys
from importlib.metadata import version

import flwr.supercore.telemetry as telemetry
import flwr.supercore.update_check as update_check
import pytest
from flwr.common import constant
from flwr.serverapp import Grid
from flwr.supercore import constant as core_constant
from flwr.supercore.cli import flower_superexec  # noqa: F401
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import subprocess_executor
from flwr.superlink.grid import http_grid
from flwr.supernode import fleet_http_client, fleet_http_connection

from cameo_client.flower import fleet
from cameo_lab.grid import InProcessGrid
from cameo_protocol.quiet import QUIET, quiet_flower
from cameo_server.flower import gate, superlink
from cameo_server.flower.bundle import build_bundle


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_version() -> None:
    assert version("flwr") == "1.41.0"


def test_flower_is_quiet_in_every_entry_point() -> None:
    # A fresh process without our variables: importing either package must set them before flwr is read.
    clean = {name: value for name, value in os.environ.items() if name not in QUIET}
    for package in ("cameo_server.flower", "cameo_client.flower"):
        code = f"import {package}, flwr.supercore.telemetry as t, os; print(t.FLWR_TELEMETRY_ENABLED, dict(os.environ))"
        seen = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
        assert seen.stdout.startswith("0 ")
        assert "'FLWR_DISABLE_UPDATE_CHECK': '1'" in seen.stdout
    assert 'os.getenv("FLWR_TELEMETRY_ENABLED"' in inspect.getsource(telemetry)
    assert 'os.getenv(FLWR_DISABLE_UPDATE_CHECK) == "1"' in inspect.getsource(update_check)
    environment = {"FLWR_TELEMETRY_ENABLED": "1"}
    quiet_flower(environment)
    assert environment == QUIET


def test_the_app_and_its_layers(tmp_path) -> None:
    from flwr.superlink.main import _get_middleware
    from flwr.superlink.routers.control.middlewares import get_license_plugin

    layers = [layer.cls.__name__ for layer in _get_middleware()]
    assert layers == [
        "ControlSensitiveResponseMiddleware",
        "BaseHTTPMiddleware",
        "ControlAuthenticationMiddleware",
        "ControlLicenseMiddleware",
        "ProtobufTranslationMiddleware",
        "RuntimeTracingMiddleware",
        "ControlEventLogMiddleware",
        "NodeAuthMiddleware",
        "FleetEventLogMiddleware",
    ], "superlink.IDLE_LAYERS"
    assert set(layers) >= superlink.IDLE_LAYERS
    assert get_license_plugin() is None


def test_the_settings_of_the_app(tmp_path) -> None:
    from flower_box import make_settings

    settings = make_settings(tmp_path)
    settings.prepare()
    app = superlink.flower_app(settings)
    assert app.state.enable_supernode_auth is True
    assert app.state.superexec_auth_secret == settings.superexec_secret_file.read_bytes()
    assert app.state.superlink_lifespan.config.isolation == "process"
    assert app.state.superlink_lifespan.config.runtime_dependency_install is False
    assert settings.database_file.exists()
    assert len(app.user_middleware) == 4


def test_the_gates_paths_are_flowers_fleet_api_less_what_we_refuse() -> None:
    fleet_paths = {path for _, path in PROTOBUF_REQUEST_TYPES if path.startswith("/v1/fleet/")}
    refused = {f"/v1/fleet/{name}" for name in ("register-node", "unregister-node", "get-run", "get-fab")}
    assert fleet_paths - refused == gate.FLEET_PATHS
    assert {path for _, path in PROTOBUF_REQUEST_TYPES if "/stream-" in path} == {
        "/v1/control/stream-logs",
        "/v1/control/stream-run-events",
    }
    assert ("POST", gate.RUNTIME_PULL) in PROTOBUF_REQUEST_TYPES


def test_the_client_beneath_the_agent() -> None:
    assert parameters(ProtobufClient.__init__) == [
        "self",
        "base_url",
        "interceptors",
        "verify",
        "timeout",
        "retry_invoker",
    ]
    client = fleet_http_client.FleetHttpClient("https://127.0.0.1:1", interceptors=[])
    assert client._client.follow_redirects is True, "why fleet.py switches it off"
    assert "self._retry_invoker.invoke(send)" in inspect.getsource(ProtobufClient._unary_unary)
    source = inspect.getsource(fleet_http_connection)
    assert "flwr_exit(" in source, "why the agent does not use the connection itself"
    assert "signal.SIGINT" in source
    assert fleet.HEARTBEAT_INTERVAL_S == constant.HEARTBEAT_MIN_INTERVAL


def test_limits_of_one_message_fit_flowers_chunks() -> None:
    assert constant.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE < gate.MAX_BODY_BYTES == fleet.MAX_OBJECT_BYTES
    largest_vector = 4 << 24
    assert largest_vector / constant.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 6 < fleet.MAX_OBJECTS


def test_the_grid_we_ask_over() -> None:
    source = inspect.getsource(http_grid.HttpGrid.pull_messages)
    assert "pull_objects(" in source, "exchange._set_patience replaces this name in the module"
    assert {"max_time", "initial_backoff", "backoff_cap"} <= set(parameters(inflatable_utils.pull_objects))
    assert inflatable_utils.PULL_INITIAL_BACKOFF >= 1, "why we replace it"
    assert "time.sleep(3)" in inspect.getsource(http_grid.HttpGrid.send_and_receive), "why we do not use it"
    grid = http_grid.HttpGrid("127.0.0.1:1", insecure=True, token="t")
    assert grid._runtime_client._client.headers is not None
    grid.close()
    assert InProcessGrid.__abstractmethods__ == frozenset()
    assert Grid.__abstractmethods__ == {
        "create_message", "get_node_ids", "pull_messages", "push_messages", "run", "send_and_receive", "set_run",
    }  # fmt: skip


def test_superexec_and_what_it_starts() -> None:
    cli = sys.modules["flwr.supercore.cli.flower_superexec"]  # the package hides it behind its function
    source = inspect.getsource(cli) + inspect.getsource(core_constant)
    assert '"--runtime-api-address"' in source
    assert '"flwr-serverapp"' in source
    assert run_superexec._TASK_POLL_INTERVAL_ENV == "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"
    assert constant.RUNTIME_DEPENDENCY_INSTALL is False, "superexec installs only when told to"
    assert "TASK_TYPE_TO_COMMAND[spec.task_type]" in inspect.getsource(subprocess_executor), "found on the PATH"
    assert constant.FLWR_HOME == "FLWR_HOME"


@pytest.mark.parametrize("name", ["plan", "plan-sha256", "run", "home"])
def test_a_key_that_is_not_declared_would_be_refused(tmp_path, name: str) -> None:
    from flwr.cli.config_utils import get_fab_config
    from flwr.common.config import fuse_dicts

    declared = get_fab_config(build_bundle(tmp_path))["tool"]["flwr"]["app"]["config"]
    assert fuse_dicts(declared, {name: "x"}, check_keys=True)[name] == "x"
    with pytest.raises(ValueError):
        fuse_dicts(declared, {name + "x": "x"}, check_keys=True)
