"""The line between two networks and how it is integrated; nothing here knows of an engine."""
