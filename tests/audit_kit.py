"""A hospital's home with nothing in it but its identity key, which is all that an audit log needs."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_client.home import PRIVATE, NodeHome, key_pem, write_file

IDENTITY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)


def bare_home(root: Path) -> NodeHome:
    home = NodeHome(root)
    write_file(home.identity_key, key_pem(IDENTITY), PRIVATE)
    return home
