"""What pytest leaves out when it looks for tests and doctests."""

import os

# Runs in processes of its own, where Triton's kernels are interpreted: see test_triton.py.
collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["triton_interpreted.py"]
