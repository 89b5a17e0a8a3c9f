"""Probes: questions with exact answers, made from the facts of a tool output."""
