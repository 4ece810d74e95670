"""Decoding on a CUDA device: fixed buffers, a captured graph for every kind of short pass, tokens fetched as they come."""
