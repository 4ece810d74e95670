"""Between JSON and the protocol's types."""

from __future__ import annotations

from typing import Any

from cattrs import Converter
from lsprotocol import types
from lsprotocol.converters import get_converter
from pygls.protocol import JsonRPCNotification, JsonRPCRequestMessage, JsonRPCResponseMessage

from lsp_server.messages import AttributedItem


def quick_converter() -> Converter:
    """A converter that stops at the first fault, and leaves the params of messages that LSP does not know as they are.

    pygls' own would collect all faults and format each: a string of a mebibyte where a list belongs would take minutes.
    """
    converter = Converter(detailed_validation=False)
    get_converter(converter)
    for generic in (JsonRPCNotification, JsonRPCRequestMessage, JsonRPCResponseMessage):
        converter.register_structure_hook(generic, _as_it_is)
    plain = converter.get_unstructure_hook(types.InlineCompletionItem)

    def item(found: types.InlineCompletionItem) -> Any:
        """With the field that the protocol does not have."""
        attribution = {"attribution": found.attribution} if isinstance(found, AttributedItem) else {}
        return plain(found) | attribution

    converter.register_unstructure_hook(types.InlineCompletionItem, item)
    return converter


def _as_it_is(message: dict[str, Any], kind: type[Any]) -> Any:
    return kind(**message)
