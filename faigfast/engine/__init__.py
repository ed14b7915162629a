"""The path engine: a network as a graph, run at points of the line; see README.md beside it."""
