"""The coordinator's side of joining by hand: its keys, the roster of hospitals, the federation file it issues."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.envelope import fingerprint
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.federation import (
    Federation,
    SiteCard,
    default_colluders,
    default_threshold,
    read_card,
    read_federation,
    write_federation,
)
from cameo_protocol.plan import Cohort, Site
from cameo_server import pki
from cameo_server.home import (
    DEFAULT_JOIN_PORT,
    DEFAULT_OPERATOR_PORT,
    DEFAULT_PAGE_PORT,
    PRIVATE,
    PUBLIC,
    CoordinatorConfig,
    CoordinatorHome,
    checked_config,
    key_pem,
    load_config,
    load_ec,
    load_ed25519,
    make_folder,
    read_file,
    toml,
    write_file,
)

MAX_INDEX = 255

# Indices are never given twice: a plan signed for a hospital that left must not fit the one that came after it.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sites (
    idx INTEGER PRIMARY KEY CHECK (idx BETWEEN 1 AND 255),
    name TEXT NOT NULL, identity TEXT NOT NULL, node_key TEXT NOT NULL,
    added TEXT NOT NULL, removed TEXT
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS active_name ON sites (name) WHERE removed IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS active_identity ON sites (identity) WHERE removed IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS active_node_key ON sites (node_key) WHERE removed IS NULL;
CREATE TABLE IF NOT EXISTS issues (serial INTEGER PRIMARY KEY, issued TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS invitations (
    name TEXT PRIMARY KEY, secret_sha256 BLOB NOT NULL, issued TEXT NOT NULL, expires INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS waiting (
    name TEXT PRIMARY KEY, card BLOB NOT NULL, request BLOB NOT NULL, since TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS certificates (
    serial TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, pem BLOB NOT NULL,
    issued TEXT NOT NULL, revoked TEXT
) STRICT;
"""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A hospital of the roster. index: its Shamir abscissa; identity, node_key: as in its card, hex; added: when."""

    index: int
    name: str
    identity: str
    node_key: str
    added: str

    def fingerprint(self) -> str:
        """What the coordinator's people and the hospital's compare by phone."""
        return fingerprint(bytes.fromhex(self.identity))

    def site(self) -> Site:
        """How a plan names it."""
        return Site(name=self.name, index=self.index, identity=self.identity)


def timestamp(now: datetime) -> str:
    """UTC to the second, as in every file that we exchange."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def init_coordinator(
    home: CoordinatorHome,
    *,
    federation: str,
    host: str,
    fleet_port: int,
    operator_port: int = DEFAULT_OPERATOR_PORT,
    join_port: int = DEFAULT_JOIN_PORT,
    page_port: int = DEFAULT_PAGE_PORT,
    now: datetime,
) -> CoordinatorConfig:
    """Make the CA, the server certificate, the plan-signing key and an empty roster; coordinator.toml comes last.

    An init that was interrupted goes on with the keys that are there already; a finished one is refused.
    """
    if home.config.exists():
        raise OperatorError(
            "already-initialised",
            what=f"there is a coordinator in {home.root} already",
            do="cameo coordinator status, or choose another folder with --home",
        )
    config = checked_config(
        federation=federation,
        host=host,
        fleet_port=fleet_port,
        operator_port=operator_port,
        join_port=join_port,
        page_port=page_port,
        created=timestamp(now),
    )
    make_folder(home.root)
    if not (home.ca_key.exists() and home.ca_cert.exists()):
        ca_key, ca = pki.create_ca(federation, now)
        write_file(home.ca_key, key_pem(ca_key), PRIVATE)
        write_file(home.ca_cert, pki.certificate_pem(ca), PUBLIC)
    _issue_server(home, host, now)
    if not home.plan_key.exists():
        write_file(home.plan_key, key_pem(Ed25519PrivateKey.generate()), PRIVATE)
    with open_roster(home):
        pass
    write_file(home.config, toml(config.model_dump()).encode(), PUBLIC)
    return config


def load_certificate(home: CoordinatorHome, name: str) -> x509.Certificate:
    """The certificate "ca" or "server" of this home."""
    path = home.ca_cert if name == "ca" else home.server_cert
    try:
        return x509.load_pem_x509_certificate(read_file(path))
    except ValueError:
        raise OperatorError(
            "certificate-broken", what=f"{path} is no certificate", do="restore it from a backup", exit=ExitCode.AUTH
        ) from None


def renew_server_certificate(home: CoordinatorHome, now: datetime) -> bool:
    """Issue a new server key and certificate when the present one ends within 30 days. Returns whether it did.

    Also when key and certificate do not belong together, as after a crash between the two writes.
    """
    certificate = load_certificate(home, "server")
    if server_pair_fits(home) and pki.days_left(certificate, now) >= pki.RENEW_DAYS:
        return False
    _issue_server(home, load_config(home).host, now)
    return True


def server_pair_fits(home: CoordinatorHome) -> bool:
    """Whether the server's key and certificate belong together."""
    return load_certificate(home, "server").public_key() == load_ec(home.server_key).public_key()


def plan_key(home: CoordinatorHome) -> Ed25519PrivateKey:
    """The key that signs plans, published models and federation.json."""
    return load_ed25519(home.plan_key)


def public_key(key: Ed25519PrivateKey) -> bytes:
    """The 32-byte public half."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def add_site(home: CoordinatorHome, raw: bytes, now: datetime) -> Member:
    """Add the hospital of a `public.json` to the roster, with the next free index.

    Refuses a file that does not prove its keys, and a name or key that a member has already.
    """
    card = read_card(raw)
    with open_roster(home) as db:
        return insert_member(db, card, now)


def refuse_removed(db: sqlite3.Connection, card: SiteCard) -> None:
    """Refuse keys of a hospital that was taken off: Flower never lets a node key in twice, and a revoked key is burnt.

    Within a transaction of `open_roster`.
    """
    row = db.execute(
        "SELECT name FROM sites WHERE removed IS NOT NULL AND (identity = ? OR node_key = ?)",
        (card.identity, card.node_key),
    ).fetchone()
    if row is not None:
        raise OperatorError(
            "key-removed",
            what=f"these keys are those of hospital {row[0]}, which was taken out; they are not let in again",
            do="the hospital makes new keys: cameo-node leave, then it joins with a new invitation",
            exit=ExitCode.AUTH,
        )


def insert_member(db: sqlite3.Connection, card: SiteCard, now: datetime) -> Member:
    """Add a hospital within a transaction of `open_roster`; refusals as in `add_site`."""
    _refuse_known(card, members_of(db))
    refuse_removed(db, card)
    index = int(db.execute("SELECT COALESCE(MAX(idx), 0) + 1 FROM sites").fetchone()[0])
    if index > MAX_INDEX:
        raise OperatorError(
            "roster-full",
            what=f"all {MAX_INDEX} indices of this federation have been given out",
            do="make a new federation: cameo coordinator init --home DIR",
        )
    member = Member(index=index, name=card.name, identity=card.identity, node_key=card.node_key, added=timestamp(now))
    db.execute(
        "INSERT INTO sites (idx, name, identity, node_key, added) VALUES (:index, :name, :identity, :node_key, :added)",
        asdict(member),
    )
    return member


def remove_site(home: CoordinatorHome, name: str, now: datetime) -> Member:
    """Take a member off the roster; its index is not given out again."""
    with open_roster(home) as db:
        return delete_member(db, name, now)


def delete_member(db: sqlite3.Connection, name: str, now: datetime) -> Member:
    """Take a member off and revoke its certificates, within a transaction of `open_roster`."""
    found = [member for member in members_of(db) if member.name == name]
    if not found:
        raise OperatorError("site-unknown", what=f"no member is called {name}", do="cameo site list")
    db.execute("UPDATE sites SET removed = ? WHERE idx = ?", (timestamp(now), found[0].index))
    db.execute(
        "UPDATE certificates SET revoked = ? WHERE name = ? AND role = 'site' AND revoked IS NULL",
        (timestamp(now), name),
    )
    return found[0]


def list_sites(home: CoordinatorHome) -> list[Member]:
    """The members, by index."""
    with open_roster(home) as db:
        return list(members_of(db))


def roster(home: CoordinatorHome) -> tuple[Site, ...]:
    """The members as a plan names them, by index."""
    return tuple(member.site() for member in list_sites(home))


def former_identities(home: CoordinatorHome) -> dict[str, tuple[str, ...]]:
    """Site name -> identity keys (hex) of members of that name that were taken off, in the order they came.

    What one of them has spent stays spent: the hospital that has the name now is held against it.
    """
    found: dict[str, tuple[str, ...]] = {}
    with open_roster(home) as db:
        for name, identity in db.execute("SELECT name, identity FROM sites WHERE removed IS NOT NULL ORDER BY idx"):
            found[name] = (*found.get(name, ()), identity)
    return found


def issue_federation(
    home: CoordinatorHome, now: datetime, *, threshold: int | None = None, colluders: int | None = None
) -> bytes:
    """The signed federation file of the present roster; the bytes are also kept in the home.

    threshold, colluders: None takes the defaults for the roster's size. When nothing has changed since the last
    issue, that file is returned again; otherwise the serial grows by one.
    """
    config, key = load_config(home), plan_key(home)
    cohort = _cohort(roster(home), threshold, colluders)
    with open_roster(home) as db:
        last = int(db.execute("SELECT COALESCE(MAX(serial), 0) FROM issues").fetchone()[0])
        federation = Federation(
            name=config.federation,
            serial=last + 1,
            issued=timestamp(now),
            host=config.host,
            fleet_port=config.fleet_port,
            operator_port=config.operator_port,
            ca_pem=read_file(home.ca_cert).decode(),
            coordinator=public_key(key).hex(),
            cohort=cohort,
        )
        if last and home.federation.exists():
            raw = read_file(home.federation)
            if _says_the_same(raw, federation):
                return raw
        raw = write_federation(federation, key)
        write_file(home.federation, raw, PUBLIC)
        db.execute("INSERT INTO issues (serial, issued) VALUES (?, ?)", (federation.serial, federation.issued))
    return raw


def _says_the_same(raw: bytes, federation: Federation) -> bool:
    try:
        issued = read_federation(raw)
    except OperatorError:  # damaged here: what goes out is then a new issue
        return False
    return issued.model_copy(update={"serial": federation.serial, "issued": federation.issued}) == federation


def _cohort(sites: tuple[Site, ...], threshold: int | None, colluders: int | None) -> Cohort:
    n = len(sites)
    if n < 3:
        raise OperatorError(
            "roster-too-small",
            what=f"the roster has {n} hospitals; a secure sum needs at least 3",
            do="cameo site add FILE for every hospital, then run the command again",
        )
    t = threshold if threshold is not None else default_threshold(n)
    c = colluders if colluders is not None else max(0, min(default_colluders(n), 2 * t - n - 1))
    try:
        return Cohort(sites=sites, threshold=t, colluders=c)
    except ValueError:
        raise OperatorError(
            "cohort-unsound",
            what=f"n={n}, t={t}, c={c} do not hold 2t > n + c and 0 <= c < t <= n",
            do="choose --threshold and --colluders so that they do, or leave both out",
        ) from None


def _issue_server(home: CoordinatorHome, host: str, now: datetime) -> None:
    key, certificate = pki.issue_server(load_ec(home.ca_key), load_certificate(home, "ca"), pki.server_hosts(host), now)
    write_file(home.server_key, key_pem(key), PRIVATE)
    write_file(home.server_cert, pki.certificate_pem(certificate), PUBLIC)


@contextmanager
def open_roster(home: CoordinatorHome) -> Iterator[sqlite3.Connection]:
    """The roster in one transaction: all of it is kept, or nothing."""
    try:
        if not home.roster.exists():
            home.roster.touch(mode=PRIVATE)
        db = sqlite3.connect(home.roster, timeout=10, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(_SCHEMA)
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
        finally:
            db.close()
    except (sqlite3.Error, OSError) as error:
        raise OperatorError(
            "roster-unreadable",
            what=f"cannot use {home.roster}: {error}",
            do="check the folder's rights and space; if the file is damaged, restore it from a backup",
        ) from None


def members_of(db: sqlite3.Connection) -> Iterator[Member]:
    rows = db.execute("SELECT idx, name, identity, node_key, added FROM sites WHERE removed IS NULL ORDER BY idx")
    for index, name, identity, node_key, added in rows:
        yield Member(index=index, name=name, identity=identity, node_key=node_key, added=added)


def _refuse_known(card: SiteCard, members: Iterable[Member]) -> None:
    for member in members:
        same = [field for field in ("name", "identity", "node_key") if getattr(member, field) == getattr(card, field)]
        if same:
            raise OperatorError(
                "site-known",
                what=f"hospital {member.name} is a member with the same {', '.join(same)}",
                do=f"compare the fingerprints; to replace it: cameo site remove {member.name}, then add the new file",
            )
