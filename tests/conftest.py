"""What all tests have in common: one thread a process, since several processes test at once and small tensors wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for the processes that tests start
