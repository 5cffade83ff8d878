"""How good synthetic images are, and whether they are copies: figures with intervals, beside held-out real images."""
