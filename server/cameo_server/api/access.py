"""Which role may call what. One table; a method that is not in it is refused to everyone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cameo_protocol.errors import ExitCode, OperatorError
from cameo_server.pki import ROLES, Holder, Role

_PEOPLE: Final[frozenset[Role]] = frozenset({"coordinator", "researcher", "auditor"})
_EVERYONE: Final[frozenset[Role]] = frozenset(ROLES)
_COORDINATOR: Final[frozenset[Role]] = frozenset({"coordinator"})
# People get a new profile by hand: whoever took one keeps it for what is left of its 90 days and no longer.
_HOSPITALS: Final[frozenset[Role]] = frozenset({"site"})
_LAUNCHERS: Final[frozenset[Role]] = frozenset({"coordinator", "researcher"})

SERVICE: Final = "/cameo.operator.v1.Operator/"
HEALTH: Final = "/grpc.health.v1.Health/"

ACCESS: Final[Mapping[str, frozenset[Role]]] = {
    "GetStatus": _EVERYONE,
    "InviteSite": _COORDINATOR,
    "ListSites": _PEOPLE,
    "ApproveSite": _COORDINATOR,
    "RevokeSite": _COORDINATOR,
    "RenewCertificate": _HOSPITALS,
    "GetFederation": _EVERYONE,
    "StartRun": _LAUNCHERS,
    "ListRuns": _PEOPLE,
    "GetRun": _PEOPLE,
    "WatchRun": _PEOPLE,
    "StopRun": _LAUNCHERS,
}

# What may be wrong with a hospital that joins, and is told to it, whoever it is.
JOINING: Final = frozenset(
    {"card-invalid", "clock-differs", "key-removed", "proof-invalid", "request-invalid", "token-refused"}
)


def require(method: str, holder: Holder) -> None:
    """Refuse a caller whose role may not call the method (its full name, "/package.Service/Method")."""
    if method.startswith(HEALTH):
        return
    name = method.removeprefix(SERVICE) if method.startswith(SERVICE) else ""
    if holder.role not in ACCESS.get(name, frozenset()):
        raise OperatorError(
            "role-refused",
            what=f"{holder.name} has role {holder.role}, which may not call {name or 'this method'}",
            do="ask the coordinator; docs/coordinator.md#roles says who may do what",
            exit=ExitCode.POLICY,
        )
