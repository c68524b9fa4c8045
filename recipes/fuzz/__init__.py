"""Damage files at random and read them; run by `python -m recipes.fuzz`."""
