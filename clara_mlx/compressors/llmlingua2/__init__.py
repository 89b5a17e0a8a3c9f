"""LLMLingua-2 in MLX: its encoders, its published algorithm, and one that cuts no name apart."""
