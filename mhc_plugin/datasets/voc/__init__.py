"""PASCAL VOC: its annotations, and a subset by classes."""
