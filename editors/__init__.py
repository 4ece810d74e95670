"""Clients of the language server, one folder each."""
