"""Nouns and what they mean: their definitions and what is a kind of what, of WordNet (Fellbaum 1998)."""
