"""Activations with a kink, whose slope is averaged over the cell of each point."""
