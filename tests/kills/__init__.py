"""SIGKILL at random moments: nothing is half-visible then, and the next run of the same does it right."""
