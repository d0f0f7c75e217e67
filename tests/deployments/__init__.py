"""Tests of the places where things run."""
