"""Which points a sweep has, and what is planned for each, before anything is written."""
