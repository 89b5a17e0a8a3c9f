"""Training examples from agents' logs: tool outputs, questions about them, exact answers."""
