"""Container images of this library: one that serves models, one that runs flows. See `Containerfile`."""
