"""Names of our own commands, and of messages that LSP does not have."""

from __future__ import annotations

from typing import Final

ACCEPT_COMMAND: Final = "starfill.accept"
"""Carried by each item; its argument is the item's id. It does nothing but count."""

STATUS_COMMAND: Final = "starfill.status"
STATISTICS_COMMAND: Final = "starfill.statistics"

DID_SHOW: Final = "textDocument/didShowCompletion"
DID_PARTIALLY_ACCEPT: Final = "textDocument/didPartiallyAcceptCompletion"
DID_CHANGE_STATUS: Final = "didChangeStatus"
