"""How good features and outputs are: probes, metrics, retrieval."""
