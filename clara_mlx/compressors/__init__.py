"""What a memory needs of a compressor, the register of them, and those that are not CLaRa."""
