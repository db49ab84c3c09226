"""How much must be read before a call so that its weights come from memory: a layer's latency after reading so many
times what the largest cache holds.

    python benchmarks/cold_caches.py [--model torch-lstm@eager] [--hidden-size 128] [--rounds 40]

All amounts take turns in random order. Printed is the median call after each, over that of warm calls, and how long the
reading took.
"""

from __future__ import annotations

import argparse
import random
from statistics import median
from time import perf_counter_ns

from harness.catalog import discover
from harness.contract import LayerSize, SessionOptions
from harness.engine.calls import one_call
from harness.engine.device import HostCaches
from harness.engine.timing import session_subject, warm_up
from harness.parity import probe_weights

INPUT_SIZE, TIME = 28, 28
TIMES = (0, 1 / 64, 1 / 16, 1 / 4, 1 / 2, 1, 2, 4)


def main() -> None:
    """Measure and print a row an amount."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="torch-lstm@eager", metavar="MODEL@RUNTIME")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    model_name, _, runtime_name = options.model.partition("@")
    catalog = discover()
    model, runtime = catalog.model(model_name), catalog.runtime(runtime_name)
    size = LayerSize(INPUT_SIZE, options.hidden_size)
    weights = probe_weights(model.architecture, size, "float32")
    subject = session_subject("timed", runtime.open(model, weights, SessionOptions(size)), 1, TIME, size, "float32", 0)
    warm_up(subject, 1.0)
    caches = {times: HostCaches(times=times) for times in TIMES}
    calls: dict[float, list[int]] = {times: [] for times in TIMES}
    reading: dict[float, list[int]] = {times: [] for times in TIMES}
    for _ in range(options.rounds):
        for times in random.sample(TIMES, len(TIMES)):
            one_call(subject, "compute", subject.make(), perf_counter_ns)  # so that each finds what a call leaves
            began = perf_counter_ns()
            caches[times].evict()
            reading[times].append(perf_counter_ns() - began)
            calls[times].append(one_call(subject, "compute", subject.make(), perf_counter_ns).elapsed_ns)
    warm = median(calls[0])
    kib = sum(array.nbytes for array in weights.values()) / 1024
    print(f"{options.model}, {size}, T={TIME}, {kib:.0f} KiB of weights;", end=" ")
    print(f"the largest cache holds {caches[1].size_bytes / 2**20:.0f} MiB")
    print("| read, times the largest cache | call | over a warm one | reading |\n| --- | --- | --- | --- |")
    for times in TIMES:
        call, took = median(calls[times]), median(reading[times])
        print(f"| {times:.3g} | {call / 1e3:.0f} µs | {call / warm:.2f} | {took / 1e6:.1f} ms |")


if __name__ == "__main__":
    main()
