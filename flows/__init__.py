"""Sentences: the flows a person triggers or a schedule starts."""
