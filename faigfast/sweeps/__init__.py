"""Sweeps: many pairs, degradations, settings and images, resumable, on processes or a cluster."""
