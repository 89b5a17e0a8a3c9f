"""Measures how much of a tool's output survives compression: exact answers, and search recall."""
