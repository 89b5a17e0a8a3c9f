"""What stands in the output of a tool: which tool printed it, its facts, names and secrets."""
