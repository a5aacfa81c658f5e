"""The hospital's audit log in a run: what is written down, and what others have seen of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cameo_client.audit import NODE, memory_audit, open_audit
from cameo_client.home import NodeHome, load_identity, read_file, write_file
from cameo_client.membership import identity_bytes, load_federation
from cameo_protocol.audit_store import AuditLog
from cameo_protocol.errors import ExitCode, OperatorError, Reject
from cameo_protocol.heads import LedgerHead, open_receipt
from cameo_protocol.stages import Answer, RoundCall

LOG_CUT = "audit-log-cut"


@dataclass
class Witness:
    """log: the audit log. receipt: file of the newest receipt; None: it is not kept."""

    log: AuditLog = field(default_factory=memory_audit)
    receipt: Path | None = None

    def admission(self, run: str, answer: Answer, codes: str) -> None:
        """An invitation was answered; codes: of the reasons of a decline."""
        self.log.note("admission", who=NODE, about=run, answer=answer, codes=codes)

    def released(self, call: RoundCall) -> None:
        """A round is charged and about to leave: written down before it does."""
        where = {"epoch": str(call.epoch), "round": str(call.round_no), "kind": call.kind}
        self.log.note("round-released", who=NODE, about=call.run, **where)

    def lacks(self, echo: LedgerHead) -> bool:
        """Whether others have seen an entry that is not in the log any more; written down when it is so."""
        if self.log.holds(echo.audit):
            return False
        self.log.note_if_new("log-cut-noticed", who=NODE, about="audit log", hash=echo.audit.hex())
        return True

    def keep_receipt(self, receipt: bytes, coordinator: bytes, identity: bytes) -> None:
        """Keep a countersigned head of our own; `Reject` unless the coordinator and this hospital signed it.

        An older one than the one that is kept changes nothing: it would hide what the log has lost since.
        """
        head = LedgerHead.open(open_receipt(receipt, coordinator), identity)
        if self.receipt is None or head.told < self._kept(coordinator, identity):
            return
        write_file(self.receipt, receipt)

    def _kept(self, coordinator: bytes, identity: bytes) -> int:
        """How many heads had been told by the receipt that is kept; 0 where there is none that holds."""
        try:
            kept = read_file(self.receipt) if self.receipt is not None and self.receipt.exists() else b""
            return LedgerHead.open(open_receipt(kept, coordinator), identity).told
        except Reject:
            return 0


def check_receipt(log: AuditLog, receipt: Path, coordinator: bytes, identity: bytes) -> bool:
    """Hold a log against the newest receipt; False when there is none yet.

    `OperatorError` "audit-log-cut" when the log has lost what the coordinator once countersigned.
    """
    if not receipt.exists():
        return False
    try:
        head = LedgerHead.open(open_receipt(read_file(receipt), coordinator), identity)
    except Reject:
        raise OperatorError(
            "receipt-invalid",
            what=f"{receipt} is not signed by the coordinator and this hospital",
            do="keep the file for whoever investigates, then remove it: the next round brings another",
            exit=ExitCode.DATA,
        ) from None
    require(log, head.audit)
    return True


def require(log: AuditLog, digest: bytes) -> None:
    """Refuse ("audit-log-cut") a log without the entry of this hash, which somebody else has seen."""
    if not log.holds(digest):
        raise OperatorError(
            "audit-log-cut",
            what=f"entry {digest.hex()[:16]}… of {log.path} was seen by others and is not in it: its end was cut off,"
            " or an old copy was put back",
            do="keep this file for whoever investigates; put the newest sound copy in its place",
            exit=ExitCode.DATA,
        )


def look_at_log(home: NodeHome) -> str:
    """What the doctor says of a home's audit log; one that does not hold, or was cut, is an `OperatorError`."""
    if not home.audit.exists():
        return "nothing has been written down yet"
    coordinator = bytes.fromhex(load_federation(home).coordinator)
    with open_audit(home) as log:
        log.verify()
        seen = check_receipt(log, home.receipt, coordinator, identity_bytes(load_identity(home)))
    return "every entry holds" + (", and what the coordinator has seen of it is there" if seen else "")
