"""The hospital's side of joining by hand: its own keys, its public card, and what it accepts from the coordinator."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_client.home import (
    DEFAULT_PAGE_PORT,
    PRIVATE,
    PUBLIC,
    DataConfig,
    NodeConfig,
    NodeHome,
    checked,
    key_pem,
    load_config,
    load_identity,
    load_node_key,
    load_pseudonym_key,
    make_folder,
    read_file,
    toml,
    write_file,
)
from cameo_client.policy_file import PolicyFile, approve, load_policy, parse_policy
from cameo_protocol.confdir import conf_dir
from cameo_protocol.envelope import fingerprint
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.federation import (
    Federation,
    SiteCard,
    ca_fingerprint,
    node_key_hex,
    read_card,
    read_federation,
    write_card,
)


def init_node(
    home: NodeHome,
    *,
    site: str,
    data: DataConfig,
    now: datetime,
    pseudonym_key: bytes | None = None,
    page_port: int = DEFAULT_PAGE_PORT,
) -> SiteCard:
    """Make this hospital's keys and its public card; node.toml comes last.

    pseudonym_key: 32 bytes of an earlier node of this hospital, so that its patients keep their pseudonyms; None
    makes a new one. page_port: of the hospital's page, 0 = none. An init that was interrupted goes on with the keys
    that are there; a finished one is refused.
    """
    if home.config.exists():
        raise OperatorError(
            "already-initialised",
            what=f"there is a hospital node in {home.root} already",
            do="cameo-node status, or another folder with --home; one that has left comes back by cameo-node join",
        )
    created = _utc(now)
    config = checked(NodeConfig, site=site, created=created, data=data, page_port=page_port)
    card = make_keys(home, config.site, created, pseudonym_key)
    _write_config(home, config)
    return card


def amend_node(home: NodeHome, *, site: str, data: DataConfig) -> None:
    """Another name or data source in node.toml, with the keys that are there.

    Only while nothing rests on the old ones: after a federation was accepted or a ledger was opened, and for the name
    also after a certificate came, it is an `OperatorError` "already-initialised".
    """
    config = load_config(home)
    if home.federation.exists() or home.ledger.exists() or (site != config.site and home.operator_cert.exists()):
        raise OperatorError(
            "already-initialised",
            what=f"{home.config} names another hospital or data source than these options",
            do="leave the options out to go on with it, correct the file, or name another folder with --home",
        )
    changed = checked(NodeConfig, **(config.model_dump() | {"site": site, "data": data}))
    if site != config.site:
        home.card.unlink(missing_ok=True)  # it names the hospital; the next one is of the same keys
    _write_config(home, changed)


def _write_config(home: NodeHome, config: NodeConfig) -> None:
    source = {key: value for key, value in config.data.model_dump().items() if value is not None}
    named: dict[str, str | int] = {"version": config.version, "site": config.site, "created": config.created}
    head = toml(named | {"page_port": config.page_port})
    write_file(home.config, f"{head}\n[data]\n{toml(source)}".encode(), PUBLIC)


def renew_keys(home: NodeHome, now: datetime) -> SiteCard:
    """The card of a node that is set up; one that has left gets new keys. Its pseudonym key is the one it had."""
    if home.identity_key.exists() and home.node_key.exists() and home.card.exists():
        return read_card(read_file(home.card))
    return make_keys(home, load_config(home).site, _utc(now), None)


def make_keys(home: NodeHome, site: str, created: str, pseudonym_key: bytes | None) -> SiteCard:
    """Make the keys that are not there, and write public.json of all of them."""
    make_folder(home.root)
    if not home.identity_key.exists():
        write_file(home.identity_key, key_pem(Ed25519PrivateKey.generate()), PRIVATE)
    if not home.node_key.exists():
        write_file(home.node_key, key_pem(ec.generate_private_key(ec.SECP384R1())), PRIVATE)
    _keep_pseudonym_key(home, pseudonym_key)
    identity, node = load_identity(home), load_node_key(home)
    card = SiteCard(
        name=site,
        identity=identity_bytes(identity).hex(),
        node_key=node_key_hex(node.public_key()),
        created=created,
    )
    write_file(home.card, write_card(card, identity, node), PUBLIC)
    return card


def _utc(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def identity_bytes(key: Ed25519PrivateKey) -> bytes:
    """The 32-byte public half of an identity key."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


@dataclass(frozen=True, kw_only=True)
class Review:
    """What the officer is asked to approve.

    federation: the file's content; raw: its bytes. first: nothing has been accepted before. joined: hospital ->
    fingerprint of every peer that the policy does not approve yet; left: approved ones that are no longer in the
    roster; terms: (what, before, now) of everything else that changed. Fingerprints as `fingerprint` writes them.
    """

    federation: Federation
    raw: bytes
    first: bool
    joined: dict[str, str]
    left: tuple[str, ...]
    terms: tuple[tuple[str, str, str], ...]

    @property
    def changed(self) -> bool:
        """Whether there is anything to approve."""
        return self.first or bool(self.joined or self.left or self.terms)


def review(home: NodeHome, raw: bytes) -> Review:
    """Read a federation file and hold it against what was accepted before; nothing is written.

    Refuses a file that does not name this hospital with its own key, one signed by another coordinator than the
    approved one, and one older than the present one.
    """
    new = read_federation(raw)
    _refuse_foreign(home, new)
    old = load_federation(home) if home.federation.exists() else None
    policy = load_policy(home.policy).policy if home.policy.exists() else None
    if policy is not None and policy.coordinator != new.fingerprint():
        raise OperatorError(
            "coordinator-changed",
            what=f"the file is signed by coordinator {new.fingerprint()}; approved is {policy.coordinator}",
            do="call the coordinator; only if it was set up anew, move policy.yaml and federation.json away and accept",
            exit=ExitCode.AUTH,
        )
    if old is not None and new.serial < old.serial:
        raise OperatorError(
            "federation-old",
            what=f"the file is issue {new.serial}; issue {old.serial} has been accepted already",
            do="ask the coordinator for its present file: cameo coordinator federation",
        )
    prints = {site.name: fingerprint(bytes.fromhex(site.identity)) for site in new.cohort.sites}
    approved = dict(policy.peers) if policy is not None else {}
    return Review(
        federation=new,
        raw=raw,
        first=old is None or policy is None,
        joined={name: found for name, found in prints.items() if approved.get(name) != found},
        left=tuple(name for name in approved if name not in prints),
        terms=_changed_terms(old, new) if old is not None else (),
    )


def accept(home: NodeHome, reviewed: Review) -> None:
    """Write what the officer has approved: the peers into policy.yaml, then federation.json.

    policy.yaml is made from the template the first time; later only its approved lines change.
    """
    template = home.policy if home.policy.exists() else conf_dir() / "policy" / "default.yaml"
    peers = {s.name: fingerprint(bytes.fromhex(s.identity)) for s in reviewed.federation.cohort.sites}
    text = approve(read_file(template).decode(), reviewed.federation.fingerprint(), peers)
    parse_policy(text.encode(), home.policy.name)
    write_file(home.policy, text.encode(), PUBLIC)
    write_file(home.federation, reviewed.raw, PUBLIC)


def load_federation(home: NodeHome) -> Federation:
    """The federation file accepted last."""
    if not home.federation.exists():
        raise OperatorError(
            "not-accepted",
            what="this hospital has not accepted a federation file yet",
            do="run the join command of the invitation again; it goes on where it was. Where files travel by hand: send"
            f" {home.card} to the coordinator, then: cameo-node accept federation.json",
        )
    try:
        return read_federation(read_file(home.federation))
    except OperatorError as error:
        raise OperatorError(
            error.code,
            what=f"{home.federation}: {error.what}",
            do=f"move {home.federation} away, then: cameo-node accept federation.json",
            exit=error.exit_code,
        ) from None


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Everything a running node needs to know about itself and the others, read once and checked against each other."""

    config: NodeConfig
    federation: Federation
    policy: PolicyFile
    index: int


def load_membership(home: NodeHome) -> Membership:
    """Read node.toml, federation.json and policy.yaml; refuse when they do not fit each other or the keys."""
    config, federation = load_config(home), load_federation(home)
    _refuse_foreign(home, federation)
    policy = load_policy(home.policy)
    if policy.policy.coordinator != federation.fingerprint():
        raise OperatorError(
            "coordinator-not-approved",
            what=f"federation.json is from {federation.fingerprint()}; policy.yaml trusts {policy.policy.coordinator}",
            do="compare with the coordinator by phone, then: cameo-node accept federation.json",
            exit=ExitCode.POLICY,
        )
    own = federation.site(config.site)
    assert own is not None  # _refuse_foreign has seen it
    return Membership(config=config, federation=federation, policy=policy, index=own.index)


def _keep_pseudonym_key(home: NodeHome, given: bytes | None) -> None:
    """Write the given or a fresh key, unless one is there; a key that is there is never replaced."""
    if home.pseudonym_key.exists():
        if given is not None and not secrets.compare_digest(given, load_pseudonym_key(home.pseudonym_key)):
            raise OperatorError(
                "pseudonym-key-differs",
                what=f"{home.pseudonym_key} holds another key than the file given",
                do="choose another folder with --home, or leave --pseudonym-key-file out to keep the present key",
            )
        return
    write_file(home.pseudonym_key, (given or secrets.token_bytes(32)).hex().encode() + b"\n", PRIVATE)


def _refuse_foreign(home: NodeHome, federation: Federation) -> None:
    config = load_config(home)
    own = federation.site(config.site)
    mine = identity_bytes(load_identity(home)).hex()
    if own is None or own.identity != mine:
        how = "does not name" if own is None else "has another key for"
        raise OperatorError(
            "not-in-roster",
            what=f"the roster of {federation.name} {how} this hospital, {config.site}",
            do=f"send {home.card} to the coordinator again and ask for a new federation.json",
            exit=ExitCode.AUTH,
        )


def _changed_terms(old: Federation, new: Federation) -> tuple[tuple[str, str, str], ...]:
    def terms(federation: Federation) -> dict[str, str]:
        return {
            "federation": federation.name,
            "address": federation.address,
            "CA": ca_fingerprint(federation.ca_pem),
            "threshold": str(federation.cohort.threshold),
            "colluders": str(federation.cohort.colluders),
        }

    before, now = terms(old), terms(new)
    return tuple((what, before[what], now[what]) for what in now if before[what] != now[what])
