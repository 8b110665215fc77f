"""The image definitions that valska ships, with their locks."""
