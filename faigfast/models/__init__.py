"""Users' networks: their tensors, calls that leave no trace, and fingerprints."""
