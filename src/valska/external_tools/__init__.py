"""Tools that valska runs, and the core that they share."""
