"""OpenImages: its files, their annotations, and a subset by classes."""
