"""Tests of the model server, against real processes of it."""
