"""`cameo demo`: sets up a federation with the two command lines, runs it, and writes the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cameo_lab.bench.local import free_port
from cameo_lab.demo.postgres import last_in_postgres
from cameo_lab.demo.processes import Children, call, call_json, interruptible
from cameo_lab.demo.progress import Progress
from cameo_lab.demo.setting import DemoOptions, DemoSite, Setting, prepare
from cameo_protocol.errors import ExitCode, OperatorError

MARK = "DEMO.txt"
HOST = "127.0.0.1"
START_WAIT = 90.0
TAG_WAIT = 90.0
AUDIT_WAIT = 900.0  # a run begins with an audit of its recipe, which takes minutes on a busy machine
OFFICER = "demo officer"


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """Where everything is. summary: the content of summary.json."""

    out: Path
    report: Path
    summary: dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """Folders of a demo."""

    out: Path

    @property
    def coordinator(self) -> Path:
        """The coordinator's home."""
        return self.out / "coordinator"

    def hospital(self, name: str) -> Path:
        """A hospital's home."""
        return self.out / "hospitals" / name


def run_demo(options: DemoOptions, say: Callable[[str], None]) -> DemoResult:
    """The main job: one coordinator and four hospitals as real processes on this machine; ends with a report.

    say: told what a person should read. Every child has ended when this returns or raises, also on Ctrl-C.
    """
    layout = Layout(_folder(options.out or Path("cameo-demo")))
    began = time.monotonic()
    with ExitStack() as places:
        with interruptible(), Progress(say) as progress, Children(layout.out / "logs") as children:
            progress.stage("data and consents")
            prepared = prepare(options, layout.out)
            setting = places.enter_context(last_in_postgres(prepared, options.postgres, say))
            _set_up(layout, setting, children, progress)
            _start(layout, setting, children, progress)
            _audited(children, progress)
            run = _launch(layout, setting)
            set_up_seconds = time.monotonic() - began
            _train(layout, run, children, progress)
            lost = _tag(layout, setting, children, progress)
            progress.stage("stopping the processes")
        from cameo_lab.demo.summary import conclude

        seconds = {"setup": set_up_seconds, "total": time.monotonic() - began}
        report, summary = conclude(layout.out, layout.coordinator, run, setting, seconds, lost)
    return DemoResult(out=layout.out, report=report, summary=summary)


def _folder(out: Path) -> Path:
    """An empty folder for the demo; one that an earlier demo left is emptied, anything else is refused."""
    import shutil

    out = out.absolute()
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise OperatorError(
                "demo-folder",
                what=f"{out} is not empty and was not made by a demo",
                do="name another folder: cameo demo --out DIR",
            )
        shutil.rmtree(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARK).write_text("Made by `cameo demo`; the next demo into this folder replaces everything in it.\n")
    except OSError as error:
        raise OperatorError(
            "disk-write", what=f"cannot write into {out}: {error.strerror}", do="name another folder with --out"
        ) from None
    return out


def _set_up(layout: Layout, setting: Setting, children: Children, progress: Progress) -> None:
    """Keys, certificates, roster and approvals, each made by its own side's command; the audit begins beside them."""
    home = ["--home", str(layout.coordinator)]
    progress.stage("coordinator: keys and certificates")
    ports = [f"--{name}-port={free_port()}" for name in ("fleet", "operator", "join", "page")]
    call(["cameo", "coordinator", "init", "--name", "demo", "--host", HOST, *ports, *home])
    recipe = ["--plan", "--sites", str(len(setting.sites)), *setting.overrides]
    children.start("audit", ["cameo", "audit", *recipe, *home])
    progress.stage("hospitals: keys, made by each of them")
    with ThreadPoolExecutor(len(setting.sites)) as pool:
        list(pool.map(lambda site: _init(layout, site), setting.sites))
    progress.stage("roster and approvals")
    for site in setting.sites:
        call(["cameo", "site", "add", str(layout.hospital(site.name) / "public.json"), *home])
    federation = layout.out / "federation.json"
    call(["cameo", "coordinator", "federation", "--out", str(federation), *home])
    with ThreadPoolExecutor(len(setting.sites)) as pool:
        list(pool.map(lambda site: _accept(layout, site, federation), setting.sites))


def _init(layout: Layout, site: DemoSite) -> None:
    home = str(layout.hospital(site.name))
    source = ["--source", site.kind, "--data", site.data, "--mapping", site.mapping]
    source += ["--password-env", site.password_env] if site.password_env else []
    key = ["--pseudonym-key-file", str(site.pseudonym_key)]
    call(["cameo-node", "init", "--name", site.name, *source, *key, "--page-port", "0", "--home", home])


def _accept(layout: Layout, site: DemoSite, federation: Path) -> None:
    """What the officer does: approve the peers, import the consents, put the rule pack in force."""
    home = ["--home", str(layout.hospital(site.name))]
    call(["cameo-node", "accept", str(federation), "--yes", *home])
    call(["cameo-node", "consent", "import", str(site.consents), *home])
    call(["cameo-node", "tags", "roles", "--add", OFFICER, "--role", "reviewer", *home])
    call(["cameo-node", "tags", "approve-pack", "--as", OFFICER, *home])


def _start(layout: Layout, setting: Setting, children: Children, progress: Progress) -> None:
    progress.stage("starting 1 coordinator and 4 hospitals")
    home = ["--home", str(layout.coordinator)]
    children.start("coordinator", ["cameo", "coordinator", "start", "--listen", HOST, *home])
    for site in setting.sites:
        children.start(site.name, ["cameo-node", "start", "--home", str(layout.hospital(site.name))])
    until = time.monotonic() + START_WAIT
    while not (layout.coordinator / "flower" / "state.json").exists():
        _still_alive(children, {"coordinator"})
        if time.monotonic() > until:
            raise OperatorError(
                "demo-start",
                what=f"the coordinator was not ready after {START_WAIT:.0f} s",
                do=f"read {children.logs}/coordinator.log",
            )
        time.sleep(0.1)


def _still_alive(children: Children, needed: set[str]) -> None:
    for name, status in children.ended().items():
        if name in needed:
            raise OperatorError(
                "demo-process",
                what=f"the {name} process ended with {status}: {children.tail(name)}",
                do="do what the message above says, then run the demo again",
                exit=ExitCode(status) if status in list(ExitCode) else ExitCode.BUG,
            )


def _audited(children: Children, progress: Progress) -> None:
    """Wait for the audit that began with the set-up; nothing is run when it failed."""
    progress.stage("audit of the plan, on made-up patients")
    until = time.monotonic() + AUDIT_WAIT
    while "audit" not in children.ended():
        _still_alive(children, {"coordinator"})
        if time.monotonic() > until:
            raise OperatorError(
                "demo-audit",
                what=f"the audit took longer than {AUDIT_WAIT:.0f} s",
                do=f"read {children.logs}/audit.log",
            )
        time.sleep(0.1)
    if children.ended()["audit"] != ExitCode.OK:
        _still_alive(children, {"audit"})


def _launch(layout: Layout, setting: Setting) -> str:
    home = ["--home", str(layout.coordinator)]
    run: str = call_json(["cameo", "run", "--no-follow", *home, *setting.overrides], timeout=AUDIT_WAIT)["run"]
    return run


def _train(layout: Layout, run: str, children: Children, progress: Progress) -> None:
    """Follow the run to its end; a run that stopped is the demo's error too."""
    from cameo_server.home import open_home
    from cameo_server.launch import follow

    progress.stage("admission and key set-up")
    stopped: OperatorError | None = None
    for event in follow(open_home(layout.coordinator), run):
        _still_alive(children, {"coordinator"})
        progress.event(event)
        if event["event"] == "stopped":
            stopped = OperatorError(event["code"], what=event["what"], do=event["do"], exit=ExitCode.PEER)
    if stopped is not None:
        raise stopped


def _tag(layout: Layout, setting: Setting, children: Children, progress: Progress) -> tuple[str, ...]:
    """Wait until every hospital that is still there has written its tags; returns those that are not there."""
    progress.stage("tags, inside each hospital", total=len(setting.sites))
    waiting = {site.name for site in setting.sites}
    lost = set()
    until = time.monotonic() + TAG_WAIT
    while waiting and time.monotonic() < until:
        for name in sorted(waiting):
            if name in children.ended():
                lost.add(name)
            elif not _tagged(layout.hospital(name)):
                continue
            waiting.discard(name)
            progress.advance()
        time.sleep(0.1)
    if waiting:
        raise OperatorError(
            "demo-tags",
            what=f"no tags from {', '.join(sorted(waiting))} after {TAG_WAIT:.0f} s",
            do=f"read {children.logs}/{min(waiting)}.log",
        )
    return tuple(sorted(lost))


def _tagged(home: Path) -> bool:
    """Whether a hospital has dealt with the published models; a failure there is the demo's error."""
    try:
        tags = json.loads((home / "state.json").read_bytes())["tags"]
    except (OSError, ValueError, KeyError):
        return False
    if tags and tags["error"]:
        raise OperatorError(
            tags["error"],
            what=f"{home.name} could not write its tags",
            do=f"cameo-node tags apply --as NAME --home {home}",
        )
    return bool(tags)
