"""The local place: one supervisor per home folder, and the keeper that makes its programs adoptable."""
