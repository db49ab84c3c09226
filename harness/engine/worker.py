"""The worker process: opens sessions of one runtime and does what the engine asks, one request at a time.

Requests and replies are JSON behind a four-byte length, over the standard streams the process was started with.
Whatever plugins print goes to the worker's log instead.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import sys
from collections import deque
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter_ns  # bound before any plugin is imported
from typing import TYPE_CHECKING, Any

from harness.engine.keeper import under_a_keeper
from harness.engine.process_state import ProcessState
from harness.engine.protocol import print_traceback, serve

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from harness.audits import Evidence
    from harness.catalog import Catalog, Plugin
    from harness.contract import Data, Model, Runtime, Session, SessionOptions, Trainer
    from harness.engine.calls import Witness
    from harness.engine.costs import PeakMemory
    from harness.engine.device import Devices
    from harness.engine.timing import Timing


class Worker:
    """What lives in a worker process between requests: the catalog, the data sets and the open sessions."""

    def __init__(self, state: ProcessState | None = None) -> None:
        self._state = state
        self._data: dict[tuple[str, str | None], Data] = {}
        self._open: dict[str, tuple[Session, Any]] = {}
        self._trainers: dict[str, Trainer] = {}
        self._oracle: dict[Any, Any] = {}  # the reference's answers; they are asked of every instance
        self._ballast: deque[bytearray] = deque(maxlen=64)
        self._random = random.Random()  # not everybody's: a plugin may seed that
        self._timing: Timing | None = None
        self._peaks: dict[tuple[str, int], float] = {}  # FLOP/s of a matrix product, by dtype and threads
        self._memory: PeakMemory | None = None

    @cached_property
    def _catalog(self) -> Catalog:
        """Every plugin, or those that `HARNESS_PLUGINS` names; loaded when first needed."""
        from harness.catalog import discover

        return discover()

    @cached_property
    def _installed(self) -> list[tuple[Plugin, EntryPoint]]:
        from harness.catalog import installed_plugins

        return installed_plugins()

    @cached_property
    def _devices(self) -> Devices:
        from harness.engine.device import Devices

        return Devices(lambda: self._catalog)

    def plugins(self) -> list[dict[str, Any]]:
        """What plugins are installed, by their metadata alone."""
        return [asdict(plugin) for plugin, _ in self._installed]

    def load_plugin(self, index: int) -> dict[str, Any]:
        """Load one of `plugins` by its place, and describe what it gives."""
        from harness.catalog import load_plugin
        from harness.description import describe

        return describe(*load_plugin(*self._installed[index]))

    def environment(self) -> dict[str, Any]:
        """What this interpreter is: versions of Python, harness, plugins and what they require, and commits.
        No plugin is imported for that.
        """
        from harness.catalog import chosen_names
        from harness.environment import interpreter

        chosen = chosen_names(None)
        return interpreter({own.distribution for own, _ in self._installed if chosen is None or own.name in chosen})

    def report(self, name: str, run: str, folder: str) -> dict[str, Any]:
        """Have a report format write what it makes of the run in one folder into another, which is empty."""
        import harness

        chosen = self._catalog.report_format(name)
        if self._state:
            self._state.restore()  # a mask or a folder that importing changed must not reach these files
        chosen.write(harness.load(run), Path(folder))
        return {}

    def load(self, task: str, data_dir: str | None) -> dict[str, Any]:
        """Load a task's data; it stays loaded. Gives the numbers of rows."""
        data = self._task_data(task, data_dir)
        return {"train_rows": len(data.train.x), "test_rows": len(data.test.x)}

    def open(self, key: str, **variant: Any) -> dict[str, Any]:
        """Open a session with probe weights under a key.

        What is allocated before it, of random size, gives every instance another memory layout (Mytkowicz et al.,
        "Producing wrong data without doing anything obviously wrong", ASPLOS 2009).
        Gives how long that took, how much of it was importing, and how many weights there are.
        """
        import numpy.random  # noqa: F401  NumPy imports it when it is first used

        import harness.catalog  # noqa: F401  before the memory is looked at, as all that follows
        from harness.engine.costs import ImportClock, PeakMemory
        from harness.parity import probe_weights

        self._memory = self._memory or PeakMemory()  # before the first plugin is loaded
        model, runtime, options = self._variant(**variant)
        self._ballast.extend(bytearray(self._random.randrange(16, 65536)) for _ in range(8))
        weights = probe_weights(model.architecture, options.size, options.dtype)
        with ImportClock() as imports:
            began = perf_counter_ns()
            session = runtime.open(model, weights, options)
            seconds = (perf_counter_ns() - began) / 1e9
        self._open[key] = (session, (model, runtime, options, weights))
        parameters = sum(array.size for array in weights.values())
        return {"open_s": seconds, "import_s": imports.seconds, "parameters": parameters}

    def first_call(self, key: str, batch: int, time: int) -> dict[str, float]:
        """Call the open session once, end to end; how long that took."""
        from harness.parity import Case, case_inputs

        session, (model, _, options, _) = self._open[key]
        inputs = case_inputs(Case(batch, time, state=False), model.architecture, options.size, options.dtype)
        began = perf_counter_ns()
        session.fetch(session.run(session.prepare(inputs)))
        seconds = (perf_counter_ns() - began) / 1e9
        return {"first_call_s": seconds}

    def costs(self, key: str, batch: int, time: int) -> dict[str, float | None]:
        """What the session costs besides: memory until now, what it says of itself, what a call of a shape computes."""
        assert self._memory
        peak_bytes = self._memory.risen_bytes()  # before what follows is imported: it holds more than some runtimes
        from harness.claims import claims
        from harness.engine.audit import flops_of

        session, (_, _, _, weights) = self._open[key]
        said = claims(session)
        return {
            "export_s": said["export_seconds"],
            "compile_s": said["compile_seconds"],
            "model_bytes": said["size_bytes"],
            "peak_memory_bytes": peak_bytes,
            "peak_device_bytes": said["peak_device_bytes"],
            "flops": flops_of(weights, batch, time),
        }

    def energy(self, key: str, batch: int, time: int) -> dict[str, float | None]:
        """Call the open session for a while, end to end: the energy that processors, and the device, use a call."""
        from itertools import cycle

        from harness.engine.energy import DEVICE_BLOCK_SECONDS, DeviceCounter, energy_counters, energy_of_a_call
        from harness.engine.timing import FreshInputs

        session, (_, _, options, _) = self._open[key]
        make = FreshInputs(key, (batch, time, options.size.input_size), options.dtype, seed=0)
        inputs = cycle([make() for _ in range(64)])  # none is made while the counters run
        call = lambda: session.fetch(session.run(session.prepare(next(inputs))))  # noqa: E731
        device = self._devices.clock(options.device)
        own = energy_of_a_call(call, [DeviceCounter(device)], DEVICE_BLOCK_SECONDS) if device else None
        return {"energy_j": energy_of_a_call(call, energy_counters()), "device_energy_j": own}

    def parity(self, key: str, shapes: list[tuple[int, int]], chunk_steps: int | None = None) -> list[dict[str, Any]]:
        """Observe the open session over the grid, at these (batch, time) shapes, and in chunks of so many steps."""
        from harness import parity

        session, (model, _, options, weights) = self._open[key]
        architecture, size, cases = model.architecture, options.size, parity.cases_of(shapes, chunk_steps)

        def reference(exact: Any, inputs: Any, size: Any) -> Any:
            at = (architecture.name, size, options.dtype, inputs.x.shape, inputs.x.tobytes(), inputs.state is None)
            if at not in self._oracle:
                self._oracle[at] = architecture.reference(exact, inputs, size)
            return self._oracle[at]

        remembering = replace(architecture, reference=reference)
        return [asdict(o) for o in parity.observe(session, remembering, weights, size, options.dtype, cases)]

    def matrices(self, key: str) -> list[dict[str, Any]]:
        """The weight matrices of the open session's architecture: name, rows and columns."""
        *_, weights = self._open[key][1]
        matrices = {name: array.shape for name, array in weights.items() if array.ndim == 2}
        return [{"matrix": name, "rows": rows, "columns": columns} for name, (rows, columns) in matrices.items()]

    def machine(self, dtype: str, threads: int) -> list[dict[str, Any]]:
        """What so many threads attain on this machine at best; for a worker whose libraries have one thread each."""
        from harness.engine.machine import attained

        return [asdict(row) for row in attained(dtype, threads)]

    def conformance(self, check: str, name: str, data_dir: str | None, **variant: Any) -> dict[str, str]:
        """Ask one rule of the conformance kit of a variant or, without one, of what has that name."""
        from harness import testing

        own = self._variant(**variant) if "model" in variant else None
        return testing.answer(check, self._catalog, name, data_dir, own, variant.get("device", "cpu"))

    def gradients(self, key: str, task: str) -> list[dict[str, Any]]:
        """Check a training step of the open session's variant, with the task's kind of loss."""
        from harness.gradients import check_gradients

        _, (model, runtime, options, _) = self._open[key]
        spec = self._catalog.task(task)
        return [asdict(check) for check in check_gradients(model, runtime, spec.kind, spec.outputs, options)]

    def timed_trainer(self, key: str, task: str) -> list[dict[str, Any]]:
        """Check the very trainer that `sample` timed for the open session's variant."""
        from harness.engine.accuracy import training_batches
        from harness.gradients import check_timed_trainer

        _, (model, _, options, _) = self._open[key]
        spec = self._catalog.task(task)
        (batch,) = training_batches(spec, 0, 1, options.dtype)
        return [asdict(c) for c in check_timed_trainer(model, self._trainers[key], spec.kind, options.size, batch)]

    def equations(
        self,
        shapes: list[tuple[int, int]],
        size: dict[str, int],
        dtype: str,
        compute_dtype: str,
        model: str = "",
        built_in: str = "",
        chunk_steps: int | None = None,
    ) -> list[dict[str, Any]]:
        """Observe the oracle's own equations in a dtype, or rounded to another, over the same cases as `parity`.

        The architecture is the core's of the name `built_in`, for which no plugin is loaded, or else that of a model.
        """
        from harness import parity
        from harness.architectures import BUILT_IN
        from harness.contract import LayerSize

        core = next((known for known in BUILT_IN if known.name == built_in), None)
        architecture, layer = core or self._catalog.model(model).architecture, LayerSize(**size)
        weights = parity.probe_weights(architecture, layer, dtype)
        cases = parity.cases_of(shapes, chunk_steps)
        found = parity.observe_equations(architecture, weights, layer, dtype, cases, compute_dtype)
        return [asdict(o) for o in found]

    def train(
        self, task: str, seed: int, data_dir: str | None, weights_path: str, predictions_path: str, **variant: Any
    ) -> dict[str, Any]:
        """Train, write the weights and the test predictions, and give the score and the learning curve."""
        from safetensors.numpy import save

        from harness.engine import accuracy
        from harness.journal import write_atomically

        model, runtime, options = self._variant(**variant)
        data = self._task_data(task, data_dir)
        weights, curve, predictions = accuracy.train(model, runtime, self._catalog.task(task), data, seed, options)
        if self._state:
            self._state.restore()  # a mask or a folder that training changed must not reach these files
        write_atomically(Path(weights_path), save(weights))
        write_atomically(Path(predictions_path), accuracy.npy_bytes(predictions))
        return {
            "score": curve[-1].score,
            "rows": len(data.test.x),
            "trivial_score": accuracy.trivial_score(self._catalog.task(task).kind, data),
            "curve": [point.row() for point in curve],
        }

    def evaluate(
        self, task: str, data_dir: str | None, weights_path: str, trainer_predictions_path: str, **variant: Any
    ) -> dict[str, Any]:
        """Score the variant on stored weights, and compare its predictions with those of the variant that trained."""
        import numpy as np
        from safetensors.numpy import load_file

        from harness.engine import accuracy

        model, runtime, options = self._variant(**variant)
        data = self._task_data(task, data_dir)
        kind = self._catalog.task(task).kind
        weights = {name: array.astype(options.dtype) for name, array in load_file(weights_path).items()}
        with contextlib.closing(runtime.open(model, accuracy.without_head(weights), options)) as session:
            predictions = accuracy.predict(session, model.architecture, weights, data.test, options.dtype)
        trainer_predictions = np.load(trainer_predictions_path, allow_pickle=False)
        return {
            "score": accuracy.score_of(kind, predictions, data.test.targets),
            "rows": len(data.test.x),
            "trivial_score": accuracy.trivial_score(self._catalog.task(task).kind, data),
            "agreeing_rows": accuracy.agreement(kind, predictions, trainer_predictions),
        }

    def start_timing(self) -> dict[str, Any]:
        """Begin the record of what happens on the machine; `finish_timing` gives it."""
        from harness.engine.timing import Timing

        self._timing = Timing()
        return {}

    def sample(
        self,
        points: list[dict[str, Any]],
        calls: int,
        budget: float,
        seed: int,
        boundaries: list[str] | None = None,
        data_dir: str | None = None,
        clock: str | None = None,
    ) -> dict[str, Any]:
        """Time open sessions: a point is a session's key, a scenario, a batch, a time and a task; see `Devices.agree`.

        A row of `samples` is the point's index and then the fields of `timing.Sample`; a row of `warmup` the index and
        the fields of `timing.WarmUp`; `work` has the rows and real steps of a call of each point, and `evidence` one
        `audits.Evidence` a point. The harness's own canary and a call that does nothing take part in every block.
        """
        from harness.engine import timing

        began = perf_counter_ns()
        subjects = [
            self._subject(name=str(index), seed=seed, data_dir=data_dir, **point) for index, point in enumerate(points)
        ]
        work = [(subject.rows, subject.steps) for subject in subjects]
        where = self._open[points[0]["key"]][1][2].device if points else "cpu"
        self._devices.agree(where, clock)
        subjects += [timing.canary_subject("canary"), timing.empty_subject("empty", self._devices.clock(where))]
        samples, warm_ups, witnesses = timing.sample(
            subjects, calls, budget, seed, boundaries or timing.BOUNDARIES, perf_counter_ns
        )
        if self._timing:
            self._timing.add(samples)
            self._timing.add_device(*self._devices.told(where))
        counted = [sample for sample in samples if sample.boundary == "compute" and sample.call > 0]
        elapsed = [
            [sample.elapsed_s for sample in counted if sample.key == str(i)] or [0.0] for i in range(len(points))
        ]
        evidence = [
            self._evidence(
                point["key"], statistics.median(own), steps or point["batch"] * point["time"], witnesses[str(index)]
            )
            for index, (point, own, (_, steps)) in enumerate(zip(points, elapsed, work, strict=True))
        ]
        tables = {
            name: [[int(key), *rest] for key, *rest in (asdict(row).values() for row in rows) if key.isdecimal()]
            for name, rows in (("samples", samples), ("warmup", warm_ups))
        }
        worker_s = (perf_counter_ns() - began) / 1e9
        told = [asdict(own) | {"worker_s": worker_s} for own in evidence]
        return {**tables, "work": work, "clock": self._devices.whose(where), "evidence": told}

    def _evidence(self, key: str, compute_s: float, steps: int, witness: Witness) -> Evidence:
        """What was seen beside a session's calls; its kept outputs are held against the oracle here, after timing."""
        from harness.engine.audit import evidence_of

        _, (model, _, options, weights) = self._open[key]
        of = model.architecture, weights, options
        return evidence_of(witness, compute_s, steps, *of, self._peak(options))

    def unloaded(self, key: str, scenario: str, time: int, most_batch: int, task: str, seed: int) -> dict[str, float]:
        """Warm an open session up, and how long it serves one request, end to end, while no other waits."""
        from harness.engine import serving

        subject = self._subject("unloaded", key, scenario, 1, time, task, seed, None)
        return {"service_s": serving.unloaded(subject, most_batch, seed, perf_counter_ns)}

    def under_load(self, key: str, time: int, load: dict[str, Any]) -> dict[str, Any]:
        """Offer an open session a load, an `arrivals.Load`; the latencies, and one `audits.Evidence`."""
        from harness.engine import arrivals, serving

        session, (model, _, options, _) = self._open[key]
        began = perf_counter_ns()
        own = model.architecture, time, options.size, options.dtype
        served, delays, witness = serving.under_load(session, *own, arrivals.Load(**load), perf_counter_ns)
        if self._timing:
            self._timing.add_probe()
        calls, busy_s = arrivals.work(served)
        evidence = self._evidence(key, busy_s, len(served) * time, witness)
        worker_s = (perf_counter_ns() - began) / 1e9
        seen = {"latencies_s": [one.latency_s for one in served], "delays_s": delays, "calls": calls, "busy_s": busy_s}
        return {**seen, "evidence": asdict(evidence) | {"worker_s": worker_s}}

    def finish_timing(self) -> dict[str, Any]:
        """What happened on the machine since `start_timing`, and what canary and empty calls took meanwhile."""
        assert self._timing
        timing, self._timing = self._timing, None
        return timing.finish()

    def idle(self) -> dict[str, float]:
        """How many cores this process and its descendants keep busy while nothing is asked of it."""
        from harness.engine.audit import busy_cores

        return {"busy_cores": busy_cores()}

    def release(self) -> dict[str, Any]:
        """Close all sessions, the last opened first, and forget all trainers; the next to open are new instances.

        Closing is not what is measured: a session that cannot be closed is told of in the log and forgotten.
        """
        self._trainers.clear()
        while self._open:
            _, (session, _) = self._open.popitem()
            try:
                session.close()
            except BaseException as error:  # SystemExit too, as in `serve`
                print_traceback(error)
        return {}

    def _subject(
        self,
        name: str,
        key: str,
        scenario: str,
        batch: int,
        time: int,
        task: str,
        seed: int,
        data_dir: str | None,
        caches: str | None = None,
    ) -> Any:
        """What is timed of an open session; a trainer that is opened for it is kept."""
        from harness.contract import RAGGED_SCENARIOS
        from harness.engine import accuracy, lengths, serving, timing

        session, (model, runtime, options, weights) = self._open[key]
        own = options.size, options.dtype, seed
        if scenario in RAGGED_SCENARIOS:
            real = lengths.real_lengths(task, self._task_data(task, data_dir).test, batch)
            subject = lengths.lengths_subject(name, session, real, batch, scenario, *own)
        elif scenario == "stream":
            subject = serving.stream_subject(name, session, model.architecture, time, *own)
        elif scenario != "training-step":
            subject = timing.session_subject(name, session, batch, time, *own)
        else:
            spec = self._catalog.task(task)
            head = accuracy.initial_head(model.architecture, options.size, spec.outputs, seed)
            recipe = replace(spec.recipe, hidden_size=options.size.hidden_size, num_layers=options.size.num_layers)
            head = {name: array.astype(options.dtype) for name, array in head.items()}
            trainer = self._trainers[key] = runtime.open_trainer(model, weights | head, spec.kind, recipe, options)
            batches = accuracy.training_batches(spec, seed, timing.DISTINCT_BATCHES, options.dtype)
            subject = timing.trainer_subject(name, trainer, batches)
        evict = self._devices.evict(options.device) if caches else None
        return replace(subject, device=self._devices.clock(options.device), evict=evict)

    def _peak(self, options: SessionOptions) -> float | None:
        """What NumPy's matrix product attains in this process, in FLOP/s; None where sessions run elsewhere."""
        from harness.engine.audit import peak_flops_per_s

        if options.device != "cpu":
            return None
        of = options.dtype, options.threads
        if of not in self._peaks:
            self._peaks[of] = peak_flops_per_s(*of)
        return self._peaks[of]

    def _variant(
        self,
        model: str,
        runtime: str,
        size: dict[str, int],
        device: str,
        dtype: str,
        threads: int,
        cache_dir: str | None,
    ) -> tuple[Model, Runtime, SessionOptions]:
        from harness.contract import LayerSize, SessionOptions

        options = SessionOptions(LayerSize(**size), device, dtype, threads, Path(cache_dir) if cache_dir else None)
        return self._catalog.model(model), self._catalog.runtime(runtime), options

    def _task_data(self, task: str, data_dir: str | None) -> Data:
        if (task, data_dir) not in self._data:
            self._data[task, data_dir] = self._catalog.task(task).load(Path(data_dir) if data_dir else None)
        return self._data[task, data_dir]


def main() -> None:
    """Go to the cores that are one's own, take the standard streams for the engine, give plugins the log, and serve."""
    with contextlib.suppress(OSError):  # whoever uses up the machine's memory is to be ended, and not the engine
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    under_a_keeper()
    if cpus := os.environ.get("HARNESS_CPUS"):  # before there is any other thread
        os.sched_setaffinity(0, map(int, cpus.split(",")))
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  lives as long as the process
    state = ProcessState()
    serve(lambda: Worker(state), requests, replies, state.restore)


if __name__ == "__main__":
    main()
