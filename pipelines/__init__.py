"""The commands: they join the rooms of `recon` into products."""

import os

# Read once when OpenMP is loaded: threads that wait sleep, instead of taking the cores from threads that work (on a
# busy two-core machine dense depth took 85 s for a photo with two spinning threads, 9 s with one).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
