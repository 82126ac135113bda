"""The pages and pictures of evaluations and of data."""
