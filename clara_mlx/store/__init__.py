"""The memory's file: SQLite with sqlite-vec. Vectors in, rows out; no model is ever imported."""
