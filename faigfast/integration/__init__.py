"""The line between two networks and its integration; nothing here depends on an engine."""
