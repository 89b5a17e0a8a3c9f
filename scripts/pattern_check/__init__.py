"""Checks that every regular expression of the source takes linear time; see scripts/patterns.py."""
