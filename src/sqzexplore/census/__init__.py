"""The cost of every architecture of a space, in one pass."""
