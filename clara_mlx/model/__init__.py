"""CLaRa in MLX: encoder, decoder and adapters on one base, and the thread that owns them."""
