"""Kits: what a build or a run needs, in one file, for a place without a network."""
