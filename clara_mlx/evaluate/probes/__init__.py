"""Questions with exact answers, made from the facts that a tool's output states."""
