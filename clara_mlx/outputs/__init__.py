"""Tool outputs with probes: generated ones to train on, and real ones to evaluate with."""
