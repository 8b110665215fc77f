"""Comparisons: whether two runs gave the same answer, and whether they were to do the same."""
