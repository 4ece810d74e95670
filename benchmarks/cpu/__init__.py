"""The engine on a CPU beside llama.cpp's server: the same weights, ids and threads, in short alternating slices."""
