"""The command line: one module a command, with a function `run`."""
