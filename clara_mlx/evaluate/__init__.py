"""What compression keeps of a tool's output: exact answers from latents beside other ways."""
