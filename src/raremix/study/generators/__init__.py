"""Generators within studies: fit, draw, translate, synthesise; how good and how private what they draw is."""
