"""Networks as users bring them: their tensors, how they are left alone, and fingerprints."""
