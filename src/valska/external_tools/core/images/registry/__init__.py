"""Container registries: what a tag names, images in and images out (OCI distribution)."""
