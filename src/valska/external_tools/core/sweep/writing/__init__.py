"""From planned points to a sweep on disk, whole or not at all."""
