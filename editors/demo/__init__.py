"""A tiny editor without a keyboard: it types into real code and shows the ghost text as it streams."""
