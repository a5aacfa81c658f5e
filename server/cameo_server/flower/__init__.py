"""Flower, from the coordinator's side: a gated SuperLink, runs, and exchanges of packets with hospitals.

A coordinator's process starts the SuperLink and superexec as children and talks to them over loopback:

    settings = SuperLinkSettings(home=home, certificate=pem, key=key, fleet_port=9092, control_port=9093)
    with SuperLinkStack(settings) as stack, stack.control() as control:
        node = control.register_node(public_key_pem, "north")      # a hospital's P-384 key
        run = control.start_run(build_bundle(conf), {"plan": text, "plan-sha256": digest, "run": "r1", "home": "…"})
        control.run_status(run).status                             # "running", then "finished"

The run's ServerApp (the bundle imports `cameo_server.app:app`) asks hospitals:

    for node, answer in Exchange(grid).ask({node: Packet("admit", body) for node in nodes}, deadline_s=30):
        ...

A hospital's process answers (`cameo_client.flower`):

    run_agent("coordinator:9092", ca_pem, keys, handle=lambda packet: ..., stop=threading.Event())

Everything that touches Flower's internals is in this package and its twin; flwr is pinned, and the tests in
tests/server/flower fail loudly when an upgrade moves what we stand on.
"""

from cameo_protocol.quiet import quiet_flower

quiet_flower()
