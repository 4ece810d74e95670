"""What the tests stand on: a strict fake editor, random checkpoints, leak checks, child processes and editing traces.

Nothing here imports the packages under test, so that a test never agrees with a mistake that it shares with them.
"""
