"""The model service: one process per user and model, which owns the device."""

__version__ = "0.1.0"
