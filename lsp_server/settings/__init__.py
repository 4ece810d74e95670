"""Typed settings in one place: one schema, where they come from, which source wins, and their reference."""

from __future__ import annotations

from lsp_server.settings.schema import MACHINE_SCOPE, SETTINGS, Settings, names_another_engine
from lsp_server.settings.sources import LiveSettings, Notice, load_settings, read_token

__all__ = [
    "MACHINE_SCOPE",
    "SETTINGS",
    "LiveSettings",
    "Notice",
    "Settings",
    "load_settings",
    "names_another_engine",
    "read_token",
]
