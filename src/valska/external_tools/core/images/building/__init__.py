"""Building an image: from a pinned definition to the same bytes, wherever and whenever."""
