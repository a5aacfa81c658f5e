"""A node's key for Flower's Fleet API: EC P-384. It only opens the door; our messages carry their own signatures."""

from __future__ import annotations

from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class NodeKeys(NamedTuple):
    """The pair Flower asks for: private and public key on the curve P-384."""

    private: ec.EllipticCurvePrivateKey
    public: ec.EllipticCurvePublicKey

    def __repr__(self) -> str:
        return "NodeKeys(...)"

    def public_bytes(self) -> bytes:
        """What the coordinator registers: PEM, SubjectPublicKeyInfo."""
        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def generate_node_key() -> NodeKeys:
    """A fresh pair from the system's randomness."""
    private = ec.generate_private_key(ec.SECP384R1())
    return NodeKeys(private, private.public_key())
