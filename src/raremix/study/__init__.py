"""Studies: arms x seeds (x folds), keyed and resumable, and what comes of them."""
