"""What CLaRa costs on this machine, beside mlx-lm, the same as text, and the machine's limit."""
