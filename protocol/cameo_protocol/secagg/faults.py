"""A refusal that names the party whose message was refused."""

from __future__ import annotations

from cameo_protocol.errors import Reject


class PartyFault(Reject):
    """A `Reject` of one party's message.

    party: index of the party whose message it was; the caller may drop it and set up again without it.
    """

    def __init__(self, code: str, party: int, *, what: str, do: str = "") -> None:
        super().__init__(code, what=f"party {party}: {what}", do=do)
        self.party = party
