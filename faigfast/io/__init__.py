"""Files: written whole or not at all; finished parts of a run, tables, machine and versions."""
