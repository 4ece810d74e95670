"""What an editor can ask for and is told: one file for each feature of the protocol."""
