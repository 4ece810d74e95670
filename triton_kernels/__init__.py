"""Triton kernels, one file per operation, each beside its torch reference. Importing the package imports nothing."""
