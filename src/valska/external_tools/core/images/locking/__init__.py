"""Locks: the base's digest, hashed requirements and the time that an image's files have."""
