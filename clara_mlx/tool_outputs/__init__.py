"""Reads the output of a tool: which tool printed it, and its facts, identifiers and secrets."""
