"""A neighbour on the machine: busy for 20 to 200 ms, quiet for as long, at random; until its parent is gone."""

from __future__ import annotations

import os
import random
import sys
import time

BURST_S = (0.02, 0.2)


def main() -> None:
    """Burst and pause; the one argument is the seed."""
    rng = random.Random(int(sys.argv[1]))
    parent = os.getppid()
    while os.getppid() == parent:
        end = time.perf_counter() + rng.uniform(*BURST_S)
        while time.perf_counter() < end:
            sum(range(1000))
        time.sleep(rng.uniform(*BURST_S))


if __name__ == "__main__":
    main()
