"""Verbs: one Prefect task per action."""
