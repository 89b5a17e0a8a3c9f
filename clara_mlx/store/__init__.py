"""The memory's rows, in SQLite or PostgreSQL. Vectors in, rows out; no model is ever imported."""
