"""Interrupt Saccade in every way that machines do; run by `python -m recipes.faults`."""
