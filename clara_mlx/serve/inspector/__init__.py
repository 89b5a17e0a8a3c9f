"""The inspector: pages on which people see what is remembered, and what was sent in its place."""
