"""One file of a bundle or a sweep: packed, described, checked, and unpacked again."""
