"""A team's memory in PostgreSQL, with pgvector; imported only when a URL is opened."""
