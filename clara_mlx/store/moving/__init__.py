"""Moving a memory to another database: from a file to a team's server, or back."""
