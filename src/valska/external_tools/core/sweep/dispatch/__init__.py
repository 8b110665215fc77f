"""From a sweep to job arrays: never a point twice, never a point lost."""
