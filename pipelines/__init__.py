"""The commands: they join the rooms of `recon` into products."""

import os

# Read once when OpenMP is loaded: how long a thread that waits keeps its core before it sleeps, here some tens of
# microseconds. By default it is milliseconds, which takes the cores from threads that work (on a busy two-core machine
# dense depth took 85 s for a photo instead of 9 s with one thread); with none, waking costs more than small operations
# gain (432 questions to the engine: 0.24 s on two cores instead of 0.14 s).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
