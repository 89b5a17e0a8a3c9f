"""What `clara-mlx demo` shows: a small project, its commands, and a small CLaRa that reads them."""
