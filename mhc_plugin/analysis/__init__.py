"""Measures over a model and a data set: class maps, swap, ROAD, random heads."""
