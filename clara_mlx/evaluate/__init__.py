"""Measures what compression keeps of tools' outputs: exact answers from latents and other ways."""
