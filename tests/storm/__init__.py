"""Kills whatever there is to kill, at random moments, and looks whether every promise still holds."""
