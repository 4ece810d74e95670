"""The language server: editors on one side, an engine on the other. Never imports torch."""
