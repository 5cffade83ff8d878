"""Whether importance maps lie on the lesions, where true masks exist."""
