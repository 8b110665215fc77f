"""The JSON Schema files of everything that valska writes."""
