"""The command line: one file a trade. Heavy imports are inside the commands that need them."""
