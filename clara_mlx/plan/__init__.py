"""Computing what fits a Mac's memory, from the shapes of the models and the machine's limits."""
