"""What computes here: which backends exist, and what they need of the machine."""
