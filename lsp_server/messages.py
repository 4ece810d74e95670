"""Names of our own commands, and of messages and fields that LSP does not have."""

from __future__ import annotations

from typing import Any, Final

import attrs
from lsprotocol import types

ACCEPT_COMMAND: Final = "starfill.accept"
"""Carried by each item; its argument is the item's id. It does nothing but count."""

STATUS_COMMAND: Final = "starfill.status"
STATISTICS_COMMAND: Final = "starfill.statistics"
RESET_STATISTICS_COMMAND: Final = "starfill.resetStatistics"

ACTION_COMMAND: Final = "starfill.action"
"""Carried by each code action; its argument is `{task, uri, range, version, problems?}`."""
REWRITE_COMMAND: Final = "starfill.rewrite"
"""Its argument is `{uri, range, instruction}`."""
ANSWER: Final = "starfill/answer"
"""To clients that ask for it: what a code action's model says, as it says it."""

DID_SHOW: Final = "textDocument/didShowCompletion"
DID_PARTIALLY_ACCEPT: Final = "textDocument/didPartiallyAcceptCompletion"
DID_CHANGE_STATUS: Final = "didChangeStatus"


@attrs.define
class AttributedItem(types.InlineCompletionItem):
    """Ghost text that stands verbatim elsewhere: `attribution` has where, the longest passage first."""

    attribution: list[dict[str, Any]] = attrs.field(factory=list, kw_only=True)
