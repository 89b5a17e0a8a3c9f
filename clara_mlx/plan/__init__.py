"""What fits a Mac: the sizes of the models, of what they read, and of the machine."""
