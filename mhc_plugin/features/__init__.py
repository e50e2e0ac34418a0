"""What the frozen part of a model computes, once: described, built, stored and read."""
