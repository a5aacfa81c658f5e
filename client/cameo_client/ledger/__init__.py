"""The hospital's privacy ledger: every release of one data set, reserved and committed before bytes leave."""

from cameo_client.ledger.entries import Caps, Committed, Head
from cameo_client.ledger.ledger import Ledger, Receipt
from cameo_client.ledger.report import render

__all__ = ["Caps", "Committed", "Head", "Ledger", "Receipt", "render"]
