"""Kernels for a CPU, written in LLVM's language and compiled for the processor and the model when one is loaded.

Here is no torch: `few_rows.py` in the folder above gives them memory to work on.
"""
