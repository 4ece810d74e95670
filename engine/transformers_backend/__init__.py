"""The second backend: models of other families that the `transformers` library has classes of its own for.

Of that library only the classes of the forward pass are used. Configuration, vocabulary and weights come through our own
gate, as everywhere; nothing is fetched, no code of a checkpoint's is run, no pickle opened.
"""
