"""SIGKILL at random moments: nothing is half-visible then, and the next run of the same does it right.

A test that fails shows its `KILL_SEED`, which as an environment variable draws the same moments again.
"""
