"""raremix: train, compare and explain classifiers of rare diseases from few, imbalanced medical images."""

__version__ = "0.1.0"
