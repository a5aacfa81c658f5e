"""Joining by token: invitations, hospitals that wait, approval, certificates and their end.

A token is `secret.CA-fingerprint`: the secret lets one hospital knock once, the fingerprint lets that hospital know
whose door it is. Only a hash of the secret is kept. A token admits nobody: a person approves, after comparing the
fingerprint of the hospital's identity key with the hospital. Source: design page "operators".
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import TypeAdapter, ValidationError

from cameo_protocol.envelope import fingerprint as fingerprint_of
from cameo_protocol.envelope import read_out
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.federation import SiteCard, read_card, read_federation
from cameo_protocol.operator_api.refusal import PROOF_SECONDS, collect_text, request_text
from cameo_protocol.plan import Name, Site
from cameo_server import pki
from cameo_server.home import CoordinatorHome, load_ec
from cameo_server.membership import (
    delete_member,
    insert_member,
    issue_federation,
    load_certificate,
    members_of,
    open_roster,
    refuse_removed,
    timestamp,
)

MAX_TTL = 30 * 24 * 3600
PROGRAMS = frozenset({"coordinator", "node"})
PERSON_DO = "ask the coordinator for a new profile: cameo person add NAME --out DIR"
HOSPITAL_DO = "call the coordinator; to come back: cameo-node leave, then cameo-node join with a new invitation"
State = Literal["invited", "waiting", "member", "revoked"]
Collected = Literal["pending", "approved", "refused"]


@dataclass(frozen=True, kw_only=True)
class SiteState:
    """A hospital on its way in, in, or out. since: UTC. certificate_days: whole days left, 0 without one."""

    name: str
    state: State
    index: int
    fingerprint: str
    since: str
    certificate_days: int


def ca_digest(certificate: x509.Certificate) -> str:
    """SHA-256 of the CA certificate, 64 hex digits: the second half of a token."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def check_name(name: str) -> str:
    """A name as plans and certificates take it, returned unchanged; not one that audit logs give to programs."""
    if name in PROGRAMS:
        raise OperatorError(
            "name-reserved", what=f"audit logs call a program {name}", do="choose another name, such as hospital-a"
        )
    try:
        return str(TypeAdapter(Name).validate_python(name))
    except ValidationError:
        raise OperatorError(
            "option-invalid",
            what="NAME is no name: it has letters a-z, digits, . _ -, begins with a letter or digit, 64 at most",
            do="choose another name, such as hospital-a",
        ) from None


def invite(
    home: CoordinatorHome, name: str, ttl_s: int, now: datetime, random: Callable[[int], bytes]
) -> tuple[str, int]:
    """A join token for a hospital of that name, and when it ends (unix seconds). A new token replaces the old one."""
    if not 60 <= ttl_s <= MAX_TTL:
        days = MAX_TTL // 86400
        raise OperatorError(
            "ttl-invalid", what=f"a token for {ttl_s} seconds", do=f"choose between a minute and {days} days"
        )
    check_name(name)
    secret = random(24).hex()
    expires = int(now.timestamp()) + ttl_s
    with open_roster(home) as db:
        if any(member.name == name for member in members_of(db)):
            raise OperatorError(
                "site-known",
                what=f"hospital {name} is a member already",
                do=f"to replace it: cameo site revoke {name}, then invite it again",
            )
        db.execute("DELETE FROM waiting WHERE name = ?", (name,))
        db.execute(
            "INSERT OR REPLACE INTO invitations VALUES (?, ?, ?, ?)",
            (name, hashlib.sha256(secret.encode()).digest(), timestamp(now), expires),
        )
    return f"{secret}.{ca_digest(load_certificate(home, 'ca'))}", expires


def enroll(
    home: CoordinatorHome, secret: str, raw_card: bytes, request_pem: bytes, proof: bytes, now: datetime
) -> SiteCard:
    """A hospital knocks with its token; returns its card. The same card may knock again, another one may not.

    proof: the identity key's signature over the certificate request. A wrong, foreign, used or expired token is one
    and the same refusal.
    """
    card = read_card(raw_card)
    _verify(card.identity, proof, request_text(request_pem))
    _request_key(request_pem)
    with open_roster(home) as db:
        row = db.execute("SELECT secret_sha256, expires FROM invitations WHERE name = ?", (card.name,)).fetchone()
        given = hashlib.sha256(secret.encode()).digest()
        kept = row[0] if row is not None else bytes(32)
        if not hmac.compare_digest(given, kept) or row is None or row[1] < now.timestamp():
            raise _token_refused()
        refuse_removed(db, card)
        before = db.execute("SELECT card FROM waiting WHERE name = ?", (card.name,)).fetchone()
        if before is not None and read_card(before[0]).identity != card.identity:
            raise _token_refused()
        db.execute(
            "INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?)", (card.name, raw_card, request_pem, timestamp(now))
        )
    return card


def approve(home: CoordinatorHome, name: str, fingerprint: str, now: datetime) -> SiteState:
    """Make a waiting hospital a member and give it a certificate, all or nothing; its token is spent.

    fingerprint: what was compared by phone, as a person types it. When nobody else is invited or waiting and the roster
    is large enough, a new federation file is issued.
    """
    with open_roster(home) as db:
        row = db.execute("SELECT card, request FROM waiting WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise OperatorError("site-not-waiting", what=f"no hospital {name} waits for approval", do="cameo site list")
        card = read_card(row[0])
        if card.fingerprint() != read_out(fingerprint):
            raise OperatorError(
                "fingerprint-differs",
                what=f"hospital {name} waits with fingerprint {card.fingerprint()}, not with the one given",
                do=f"compare by phone again; if it is not theirs: cameo site revoke {name}, and send a new invitation",
                exit=ExitCode.AUTH,
            )
        member = insert_member(db, card, now)
        _issue(db, home, _request_key(row[1]), (name, "site"), now)
        db.execute("DELETE FROM waiting WHERE name = ?", (name,))
        db.execute("DELETE FROM invitations WHERE name = ?", (name,))
        expected = db.execute("SELECT COUNT(*) FROM invitations WHERE expires >= ?", (int(now.timestamp()),)).fetchone()
        ready = expected[0] == 0 and sum(1 for _ in members_of(db)) >= 3
    if ready:
        issue_federation(home, now)
    return next(site for site in site_states(home, now) if site.name == member.name and site.state == "member")


def revoke(home: CoordinatorHome, name: str, now: datetime) -> SiteState:
    """Take a hospital out: a member loses its place and certificates, a waiting or invited one its token."""
    called = [site for site in site_states(home, now) if site.name == name]
    found = [site for site in called if site.state != "revoked"]
    if called and not found:
        raise OperatorError("site-revoked", what=f"hospital {name} is revoked already", do="cameo site list")
    if not found:
        raise OperatorError("site-unknown", what=f"no hospital is called {name}", do="cameo site list")
    with open_roster(home) as db:
        db.execute("DELETE FROM waiting WHERE name = ?", (name,))
        db.execute("DELETE FROM invitations WHERE name = ?", (name,))
        if any(member.name == name for member in members_of(db)):  # it may have been approved since we looked
            delete_member(db, name, now)
    return SiteState(
        name=name,
        state="revoked",
        index=found[0].index,
        fingerprint=found[0].fingerprint,
        since=timestamp(now),
        certificate_days=0,
    )


def collect(
    home: CoordinatorHome, name: str, unix_seconds: int, proof: bytes, now: datetime
) -> tuple[Collected, bytes, bytes]:
    """(state, certificate PEM, federation file) for the hospital that proves to be `name`; b"" for what is not there.

    Whoever is neither waiting nor a member, and whoever cannot prove it, is told "refused". A certificate in its last
    30 days is made anew for the same key: so a hospital that was away too long to renew it comes back.
    """
    if abs(now.timestamp() - unix_seconds) > PROOF_SECONDS:
        raise OperatorError(
            "clock-differs",
            what=f"the hospital's clock and the coordinator's differ by more than {PROOF_SECONDS // 60} minutes",
            do="set this machine's clock, then run the command again",
            exit=ExitCode.AUTH,
        )
    with open_roster(home) as db:
        waiting = db.execute("SELECT card FROM waiting WHERE name = ?", (name,)).fetchone()
        member = next((m for m in members_of(db) if m.name == name), None)
        # A member goes first: who waits under its name, since it was added by hand, must not be taken for it.
        identity = member.identity if member is not None else read_card(waiting[0]).identity if waiting else ""
    if not identity:
        return "refused", b"", b""
    try:
        _verify(identity, proof, collect_text(name, unix_seconds))
    except OperatorError:
        return "refused", b"", b""
    if member is None:
        return "pending", b"", b""
    return "approved", _certificate_for(home, name, now), federation_for(home, member.site())


def _certificate_for(home: CoordinatorHome, name: str, now: datetime) -> bytes:
    """The newest certificate (PEM) of a member, renewed where it is due; b"" when it joined by hand."""
    with open_roster(home) as db:
        row = db.execute(
            "SELECT pem FROM certificates WHERE name = ? AND role = 'site' AND revoked IS NULL ORDER BY rowid DESC",
            (name,),
        ).fetchone()
        if row is None:
            return b""
        certificate = x509.load_pem_x509_certificate(row[0])
        public = certificate.public_key()
        if pki.days_left(certificate, now) >= pki.RENEW_DAYS or not isinstance(public, ec.EllipticCurvePublicKey):
            return bytes(row[0])
        return _issue(db, home, public, (name, "site"), now)


def federation_for(home: CoordinatorHome, site: Site) -> bytes:
    """The federation file issued last, when it names that hospital with its present key and number; otherwise b""."""
    if not home.federation.exists():
        return b""
    raw = home.federation.read_bytes()
    return raw if read_federation(raw).site(site.name) == site else b""


def renew(home: CoordinatorHome, holder: pki.Holder, request_pem: bytes, now: datetime) -> bytes:
    """A new certificate (PEM) for the same name and role; the old one stays good until it ends."""
    with open_roster(home) as db:
        _require_good(db, holder)  # again: it may have been revoked since the door
        return _issue(db, home, _request_key(request_pem), (holder.name, holder.role), now)


def issue_person(
    home: CoordinatorHome, public: ec.EllipticCurvePublicKey, name: str, role: pki.Role, now: datetime
) -> bytes:
    """A certificate (PEM) for a person of the coordinator's house."""
    with open_roster(home) as db:
        return _issue(db, home, public, (name, role), now)


def revoke_person(home: CoordinatorHome, name: str, now: datetime) -> int:
    """Revoke all certificates of a person; returns how many. A hospital is revoked with `revoke`."""
    with open_roster(home) as db:
        count = db.execute(
            "UPDATE certificates SET revoked = ? WHERE name = ? AND role != 'site' AND revoked IS NULL",
            (timestamp(now), name),
        ).rowcount
    if count == 0:
        raise OperatorError(
            "person-unknown",
            what=f"nobody called {name} has a certificate that is not revoked yet",
            do="check the name; everybody who was added is in: cameo audit-log export",
        )
    return count


def check_holder(home: CoordinatorHome, certificate: x509.Certificate, now: datetime) -> pki.Holder:
    """Who calls, given the certificate of a finished TLS handshake; refuses one that was revoked or never issued.

    Also one that has ended since the handshake: a connection may stay open for longer.
    """
    try:
        holder = pki.holder_of(certificate)
    except ValueError as error:
        raise _not_let_in(f"the certificate cannot be used here: {error}") from None
    with open_roster(home) as db:
        _require_good(db, holder)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise OperatorError(
            "certificate-ended",
            what=f"by the coordinator's clock the certificate of {holder.name} has ended or not begun",
            do="run the join command of the invitation again" if holder.role == "site" else PERSON_DO,
            exit=ExitCode.AUTH,
        )
    return holder


def is_good(home: CoordinatorHome, certificate: x509.Certificate, now: datetime) -> bool:
    """Whether `check_holder` would let its holder in."""
    try:
        check_holder(home, certificate, now)
    except OperatorError as error:
        if error.code in ("certificate-refused", "certificate-ended"):
            return False
        raise
    return True


def _require_good(db: sqlite3.Connection, holder: pki.Holder) -> None:
    """Refuse the holder of a certificate that was revoked or never issued, within a transaction of `open_roster`."""
    row = db.execute("SELECT revoked FROM certificates WHERE serial = ?", (f"{holder.serial:x}",)).fetchone()
    if row is None or row[0] is not None:
        what = f"the certificate of {holder.name} has been revoked" if row else "unknown certificate"
        raise _not_let_in(what, HOSPITAL_DO if holder.role == "site" else PERSON_DO)


def site_states(home: CoordinatorHome, now: datetime) -> list[SiteState]:
    """Everyone invited, waiting, member or revoked, members first; of an expired invitation nothing is said."""
    with open_roster(home) as db:
        members = list(members_of(db))
        waiting = db.execute("SELECT name, card, since FROM waiting ORDER BY name").fetchall()
        invited = db.execute(
            "SELECT name, issued FROM invitations WHERE expires >= ? ORDER BY name", (int(now.timestamp()),)
        ).fetchall()
        removed = db.execute(
            "SELECT name, idx, identity, removed FROM sites WHERE removed IS NOT NULL ORDER BY removed"
        ).fetchall()
        days = {name: _days(db, name, now) for name in [member.name for member in members]}
    states = [_state(m.name, "member", m.index, m.fingerprint(), m.added, days[m.name]) for m in members]
    states += [_state(name, "waiting", 0, read_card(card).fingerprint(), since, 0) for name, card, since in waiting]
    knocked = {name for name, _, _ in waiting}
    states += [_state(name, "invited", 0, "", issued, 0) for name, issued in invited if name not in knocked]
    states += [_state(n, "revoked", i, fingerprint_of(bytes.fromhex(key)), at, 0) for n, i, key, at in removed]
    return states


def _state(name: str, state: State, index: int, fingerprint: str, since: str, days: int) -> SiteState:
    return SiteState(
        name=name, state=state, index=index, fingerprint=fingerprint, since=since, certificate_days=max(days, 0)
    )


def _days(db: sqlite3.Connection, name: str, now: datetime) -> int:
    rows = db.execute(
        "SELECT pem FROM certificates WHERE name = ? AND role = 'site' AND revoked IS NULL", (name,)
    ).fetchall()
    return max((pki.days_left(x509.load_pem_x509_certificate(row[0]), now) for row in rows), default=0)


def _issue(
    db: sqlite3.Connection,
    home: CoordinatorHome,
    public: ec.EllipticCurvePublicKey,
    holder: tuple[str, pki.Role],
    now: datetime,
) -> bytes:
    certificate = pki.issue_client(load_ec(home.ca_key), load_certificate(home, "ca"), public, holder, now)
    pem = pki.certificate_pem(certificate)
    db.execute(
        "INSERT INTO certificates VALUES (?, ?, ?, ?, ?, NULL)",
        (f"{certificate.serial_number:x}", holder[0], holder[1], pem, timestamp(now)),
    )
    return pem


def _request_key(request_pem: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return pki.read_request(request_pem)
    except ValueError:
        raise OperatorError(
            "request-invalid",
            what="the certificate request is not a signed one for a P-256 key",
            do="run the command again; if it fails again, send this text to those who run the federation",
            exit=ExitCode.AUTH,
        ) from None


def _verify(identity: str, signature: bytes, text: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(identity)).verify(signature, text)
    except (InvalidSignature, ValueError):
        raise OperatorError(
            "proof-invalid",
            what="the signature is not of the hospital's identity key",
            do="run the command again from the hospital's own machine",
            exit=ExitCode.AUTH,
        ) from None


def _token_refused() -> OperatorError:
    return OperatorError(
        "token-refused",
        what="the join token is wrong, used by another, or has ended, or the name is not the invited one",
        do="check --name with the coordinator; or ask for a new token: cameo site invite NAME",
        exit=ExitCode.AUTH,
    )


def _not_let_in(what: str, do: str = PERSON_DO) -> OperatorError:
    return OperatorError("certificate-refused", what=what, do=do, exit=ExitCode.AUTH)
