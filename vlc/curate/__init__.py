"""Data sets to better data sets: surveys, filters, duplicates, joins, builds, statistics."""
