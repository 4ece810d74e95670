"""Of which documents something may be sent: secrets, ignored files, the user's own globs."""
