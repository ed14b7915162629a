"""Files: written as a whole or not at all, and what is needed to go on where a run stopped."""
