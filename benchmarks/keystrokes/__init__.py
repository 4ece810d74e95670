"""What a key costs: editing traces through our engine alone, through the whole server, and through other engines."""
