"""starfill in Helix: a `languages.toml`, and what writes it."""
