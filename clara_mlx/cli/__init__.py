"""The command line: one file a trade; heavy imports stand inside the commands."""
