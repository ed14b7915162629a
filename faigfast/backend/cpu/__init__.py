"""The C++ extension on a CPU: the module, its memory, and the state of the processor."""
