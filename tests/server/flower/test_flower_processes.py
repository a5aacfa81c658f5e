"""The real thing on this machine: SuperLink, superexec, a ServerApp's process, and four agents over TLS."""

import logging
import os
import signal
import statistics
import sys
from collections.abc import Iterator

import httpx
import psutil
import pytest
from flower_box import Box, eventually, open_box

from cameo_client.flower.agent import AgentState
from cameo_client.flower.keys import generate_node_key
from cameo_lab.bench.local import make_local_tls
from cameo_protocol.errors import OperatorError
from cameo_protocol.packet import Packet
from cameo_server.flower import gate

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Audit hooks cannot be removed: one for the whole process, whose notes tests look at.
_connected: list[str] = []


def _note(event: str, args: tuple) -> None:
    host = args[1][0] if event == "socket.connect" and isinstance(args[1], tuple) else None
    host = args[0] if event == "socket.getaddrinfo" else host
    if host is not None:
        _connected.append(host.decode() if isinstance(host, bytes) else host)


sys.addaudithook(_note)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = open_box(tmp_path_factory.mktemp("box"))
    for _ in range(4):
        box.add_agent()
    yield box
    box.close()


def test_a_run_asks_four_hospitals_and_is_quick(box: Box) -> None:
    # The goal on two quiet cores is 0.3 s; the bound leaves room for a busy machine.
    result = box.run(nodes=4, rounds=8)
    assert result["nodes"] == sorted(agent.node_id for agent in box.agents)
    assert all(r["right"] and r["answered"] == result["nodes"] for r in result["rounds"])
    median = statistics.median(r["seconds"] for r in result["rounds"])
    logging.getLogger(__name__).warning("median exchange with 4 agents: %.3f s", median)
    assert median < 2
    assert [state for state, _ in box.agents[0].states] == [AgentState.CONNECTING, AgentState.ONLINE]
    assert box.agents[0].states[-1][1] == box.agents[0].node_id


def test_a_large_vector_travels_in_chunks(box: Box) -> None:
    result = box.run(nodes=4, rounds=1, size=6 << 20, deadline_s=60)
    assert [r["right"] for r in result["rounds"]] == [True]


def test_no_process_connects_anywhere_but_to_this_machine(box: Box) -> None:
    box.run(nodes=4, rounds=1)
    notes = box.connections
    assert len({pid for pid, _ in notes}) >= 2, "superexec and the ServerApp's process connect to the SuperLink"
    assert {host for _, host in notes} <= LOOPBACK
    assert set(_connected) <= LOOPBACK, "the agents, in this process"
    assert _connected


def test_the_public_port_answers_only_what_the_agent_calls(box: Box) -> None:
    from cameo_server.flower.superlink import flower_app

    routes = {(method, path) for path, methods in _routes(flower_app(box.settings)) for method in methods}
    assert len(routes) > 60
    with httpx.Client(verify=_trust(box), trust_env=False) as client:
        statuses = {
            (method, path): client.request(method, f"https://{box.address}{path}").status_code
            for method, path in sorted(routes)
        }
    open_routes = {(method, path) for (method, path), status in statuses.items() if status != 404}
    assert open_routes == {("POST", path) for path in gate.FLEET_PATHS}
    assert {statuses[route] for route in open_routes} == {415}, "not protobuf"


def _trust(box: Box):
    import ssl

    return ssl.create_default_context(cafile=str(box.tls.ca))


def _routes(app) -> list[tuple[str, set[str]]]:
    from fastapi.routing import iter_route_contexts

    found = [(c.route.path, set(c.route.methods or ())) for c in iter_route_contexts(app.routes) if c.route.methods]
    return [*found, ("/", {"GET"}), ("/v1/fleet", {"POST"}), ("/v1/fleet/", {"POST"}), ("/v1/fleet/get-fab", {"POST"})]


def test_old_tls_is_refused(box: Box) -> None:
    import socket
    import ssl

    context = ssl.create_default_context(cafile=str(box.tls.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", box.settings.fleet_port)) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw, server_hostname="localhost")


def test_the_control_api_wants_its_token(box: Box) -> None:
    with httpx.Client(trust_env=False) as client:
        url = f"http://{box.settings.control_address}/v1/control/list-nodes"
        headers = {"content-type": "application/x-protobuf"}
        assert client.post(url, headers=headers).status_code == 401
        assert client.post(url, headers=headers | {gate.CONTROL_HEADER: "0" * 64}).status_code == 401
    assert oct(box.settings.control_token_file.stat().st_mode & 0o777) == "0o600"
    assert oct(box.settings.superexec_secret_file.stat().st_mode & 0o777) == "0o600"


def test_no_route_on_loopback_serves_a_stranger_on_this_machine(box: Box) -> None:
    """Whoever has no token and no key of a hospital gets 401 on every route of Flower's, and learns of health alone."""
    base = f"http://{box.settings.control_address}"
    served = []
    with httpx.Client(trust_env=False, base_url=base, headers={"content-type": "application/protobuf"}) as client:
        routes = client.get("/openapi.json").json()["paths"]
        assert len(routes) > 60
        for path, methods in routes.items():
            served += [path for method in methods if client.request(method, path).status_code != 401]
    assert set(served) == {"/health"}


def test_a_task_is_not_given_to_a_stranger_on_this_machine(box: Box) -> None:
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.runtime import RuntimeHttpClient

    with RuntimeHttpClient(f"http://{box.settings.control_address}") as client:
        with pytest.raises(httpx.HTTPStatusError) as refused:
            client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))
        assert refused.value.response.status_code == 401


def test_a_key_that_is_not_registered_is_refused(box: Box) -> None:
    stranger = box.add_agent(register=False)
    eventually(lambda: stranger.state() is AgentState.REFUSED)
    stranger.end()
    assert stranger.states[-1] == (AgentState.STOPPED, 0)
    assert AgentState.ONLINE not in {state for state, _ in stranger.states}
    box.agents.remove(stranger)


def test_a_node_id_of_another_key_is_refused(box: Box) -> None:
    thief = box.add_agent(register=False, node_id=box.agents[0].node_id)
    eventually(lambda: thief.state() is AgentState.REFUSED)
    thief.end()
    box.agents.remove(thief)


def test_a_coordinator_of_another_ca_ends_the_agent(box: Box, tmp_path) -> None:
    agent = box.add_agent(ca=make_local_tls(tmp_path).ca.read_bytes())
    eventually(lambda: agent.failure)
    assert agent.failure[0].code == "tls-untrusted"
    assert agent.failure[0].exit_code == 5
    agent.end()
    box.agents.remove(agent)


def test_a_node_that_is_locked_out_is_refused_at_once(box: Box) -> None:
    agent = box.add_agent()
    eventually(lambda: agent.state() is AgentState.ONLINE)
    box.control.unregister_node(agent.node_id)
    eventually(lambda: agent.state() is AgentState.REFUSED, 6)
    assert agent.node_id not in {node.node_id for node in box.control.list_nodes()}
    agent.end()
    box.agents.remove(agent)


def test_a_handler_that_fails_is_a_dropped_node_and_its_words_stay(box: Box) -> None:
    def fail(packet: Packet) -> Packet:
        raise ValueError("patient 4711 is 93 years old")

    def refuse(packet: Packet) -> Packet:
        raise OperatorError("budget-spent", what="epsilon 2.9 of 3.0", do="ask the officer")

    bad = [box.add_agent(fail), box.add_agent(refuse)]
    result = box.run(nodes=6, rounds=1)
    good = sorted(set(result["nodes"]) - {agent.node_id for agent in bad})
    assert result["rounds"][0]["answered"] == good
    assert result["rounds"][0]["seconds"] < 5, "an error is an answer: nobody waits for the deadline"
    stored = box.settings.database_file.read_bytes() + box.settings.database_file.with_suffix(".db-wal").read_bytes()
    assert b"patient 4711" not in stored
    assert b"epsilon 2.9" not in stored
    for agent in bad:
        agent.stop.set()
    for agent in bad:
        agent.end()
        box.agents.remove(agent)


def test_control_lists_nodes_and_runs(box: Box) -> None:
    nodes = {node.node_id: node for node in box.control.list_nodes()}
    for agent in box.agents:
        assert nodes[agent.node_id].status == "online"
        assert nodes[agent.node_id].public_key == agent.keys.public_bytes()
    run = box.start_run(nodes=4, rounds=500, gap_s=0.05)
    eventually(lambda: box.progress() > 1)
    assert box.control.run_status(run).status == "running"
    assert box.control.stop_run(run)
    eventually(lambda: box.control.run_status(run).status == "finished")
    assert box.control.run_status(run).outcome == "stopped"


def test_control_says_what_flower_refuses(box: Box) -> None:
    keys = generate_node_key()
    node = box.control.register_node(keys.public_bytes(), "twice")
    for refused in (
        lambda: box.control.register_node(keys.public_bytes(), "twice"),
        lambda: box.control.register_node(b"no key", "x"),
        lambda: box.control.unregister_node(1),
        lambda: box.control.run_status(1),
        lambda: box.control.stop_run(1),
        lambda: box.control.start_run(b"no bundle", {}),
    ):
        with pytest.raises(OperatorError) as error:
            refused()
        assert error.value.code == "flower-refused"
    box.control.unregister_node(node)
    with pytest.raises(OperatorError):
        box.control.register_node(keys.public_bytes(), "a key that was locked out stays out")


def test_a_killed_superlink_comes_back_and_the_run_goes_on(box: Box) -> None:
    before = box.stack.restarts
    run = box.start_run(nodes=4, rounds=10, gap_s=0.1, deadline_s=30)
    eventually(lambda: box.progress() >= 3)
    os.kill(box.stack.pids()["superlink"], signal.SIGKILL)
    result = box.finish(run)
    assert box.stack.restarts == before + 1
    assert len(result["rounds"]) == 10
    whole = [r for r in result["rounds"] if r["answered"] == result["nodes"] and r["right"]]
    assert len(whole) >= 9, "at most the exchange that was cut lost answers"
    assert {agent.state() for agent in box.agents} == {AgentState.ONLINE}


def test_a_killed_coordinator_takes_its_children_along(tmp_path) -> None:
    import subprocess
    import textwrap

    script = textwrap.dedent(f"""
        import sys, time
        sys.path[:0] = {[str(p) for p in sys.path if p]!r}
        from pathlib import Path
        from flower_box import make_settings
        from cameo_server.flower.supervisor import SuperLinkStack
        stack = SuperLinkStack(make_settings(Path({str(tmp_path)!r})))
        stack.start()
        print(*stack.pids().values(), flush=True)
        time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    process.kill()
    process.wait()
    eventually(lambda: not any(psutil.pid_exists(p) and psutil.Process(p).status() != "zombie" for p in pids), 10)
