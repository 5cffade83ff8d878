"""Tests; a package of its own, so that none that a dependency installs under this name comes first."""
