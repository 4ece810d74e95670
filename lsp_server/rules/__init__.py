"""What the rules of shaping look at: scopes, signs, brackets, indentation, languages. Pure."""
