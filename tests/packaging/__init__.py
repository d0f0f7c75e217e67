"""What a person gets who clones, builds or installs this."""
