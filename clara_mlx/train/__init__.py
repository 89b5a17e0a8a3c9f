"""The stages of CLaRa training: data, losses, a resumable trainer, and saving the result."""
