"""Variants opened, proved and timed in the process that asks, for a tool that has a loop and a table of its own.

Sessions, inputs, the boundary, parity and audits are those of workers, by the same code. What only a process of one's
own gives is not here: a plugin that crashes takes this process with it, and nothing is interleaved or measured beside.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

from harness import audits
from harness.catalog import Catalog, discover
from harness.contract import Inputs, LayerSize, Session
from harness.engine import timing
from harness.engine.audit import busy_cores
from harness.engine.calls import Clock, Subject, Witness, timed_call
from harness.engine.context import Context, Outcome
from harness.engine.verification import Verification
from harness.engine.worker import Worker
from harness.plan import Plan, Setting, Trial

REPEATED_PAIRS = 5  # of turns; Student's t needs some, and what remembers answers is found by the fewest
SEED = 0  # of inputs and of a training step's head
BLOCK_CALLS = 100  # counted ones, before garbage is collected again
CALLS_BEFORE_COUNTED = 2  # which find the caches that a collection or the copy of an input has left


class Wrong(AssertionError):
    """A variant that is not what it says, in one line with its status: what was timed of it is no latency."""


class Windows:
    """A clock for another tool's loop: between two readings it counts what was timed, by the harness's own clock.

    Where nothing was timed between them it counts all the time that passed, so that a tool can find out how fine it is.
    """

    def __init__(self, clock: Clock = perf_counter_ns) -> None:
        self._clock = clock
        self._last, self._reading = clock(), 0
        self._windows: int | None = None

    def add(self, elapsed_ns: int) -> None:
        """Something was timed."""
        self._windows = (self._windows or 0) + elapsed_ns

    def seconds(self) -> float:
        """The reading."""
        now = self._clock()
        self._reading += now - self._last if self._windows is None else self._windows
        self._last, self._windows = now, None
        return self._reading / 1e9


class Calls:
    """What another tool's loop calls: a subject, at the compute boundary, every time on an input of its own.

    Where it is timed, garbage is collected before every `BLOCK_CALLS` counted calls, and outputs are kept of calls that
    are timed by the same lines and not counted; a session cannot tell them apart. `CALLS_BEFORE_COUNTED` others follow
    both. So no counted call pays for what was done beside it, not even the first, from which a tool may conclude how
    often to call.

    Args:
        subject: what is called.
        windows: gets what a counted call took.
        is_timed: whether anybody reads that. If not, there are no calls but those of the loop.

    Attributes:
        witness: what was seen beside the calls.
        elapsed_ns: of every counted call.
    """

    def __init__(self, subject: Subject, windows: Windows, is_timed: bool) -> None:
        self.witness = Witness()
        self.elapsed_ns: list[int] = []
        self._subject, self._windows, self._is_timed = subject, windows, is_timed
        self._random = random.Random()  # a session cannot know which outputs are kept

    def __call__(self) -> None:
        """A counted call, and outside its window what comes before it."""
        is_kept = self._subject.is_session and self._random.random() * (1 + len(self.elapsed_ns)) < timing.KEPT_OUTPUTS
        if self._is_timed:
            self._prepare(is_kept)
        took, around = self._call(is_kept and not self._is_timed)
        self._windows.add(took)
        self.elapsed_ns.append(took)
        self.witness.around_s.append(around / 1e9)

    def _prepare(self, is_kept: bool) -> None:
        begins = len(self.elapsed_ns) % BLOCK_CALLS == 0
        if begins:
            gc.collect()
            gc.freeze()  # what is there by now stays; the next collection need not look at it again
        if is_kept:
            self._call(True)
        for _ in range(CALLS_BEFORE_COUNTED if begins or is_kept else 0):
            self._call(False)

    def _call(self, is_kept: bool) -> tuple[int, int]:
        call = timed_call(self._subject, "compute", is_kept, self.witness, perf_counter_ns)
        if self._subject.device is not None:
            self.witness.host_s.append(call.host_ns / 1e9)
        return call.elapsed_ns, call.around_ns


class InProcess(Worker):
    """A worker's requests, answered where they are asked. Plugins are loaded into this process when they are needed.

    Yardsticks are observed in workers, as in a run, so that no framework is loaded here for them.

    Args:
        plan, catalog: what may be opened; of the catalog nothing but names is used.
        cache_dir: where sessions keep what is costly to make.
        data_dir: the user's folder of data sets.
    """

    def __init__(self, plan: Plan, catalog: Catalog, cache_dir: Path, data_dir: Path | None) -> None:
        super().__init__()
        self.context = Context(plan, catalog, data_dir=data_dir)
        self.verification = Verification(self.context)
        self._cache_dir = str(cache_dir)
        self._setting: Setting | None = None  # of what was opened last

    def ask(self, do: str, seconds: float, **arguments: Any) -> Any:
        """Answer a request; what a plugin raises is raised. There is no limit on time."""
        return getattr(self, do)(**arguments)

    @contextmanager
    def opened(self, trial: Trial) -> Iterator[OpenVariant]:
        """The trial's variant, open with probe weights and with the trial's threads; closed at the end.

        Raises:
            Unsupported: it cannot be had here.
            HarnessError: its plugin cannot be loaded.
        """
        was_resting = not audits.rest(busy_cores()).problem
        plugins = self.context.plugins_of([trial.variant], trial.task)
        self._catalog = discover(plugins)
        options = self.context.variant(trial) | {"cache_dir": self._cache_dir}
        self._peaks.clear()  # threads and the machine may be others by now
        if trial.setting != self._setting:
            self._oracle.clear()
            self._setting = trial.setting
        with ExitStack() as stack:
            stack.enter_context(threadpool_limits(trial.threads))
            stack.callback(self.release)
            self.open(trial.session, **options)
            stack.enter_context(threadpool_limits(trial.threads))  # of libraries that were loaded just now
            session, _ = self._open[trial.session]
            yield OpenVariant(self, trial, session, was_resting)

    def subject(self, trial: Trial) -> Subject:
        """What is timed of an open session's latency trial."""
        point = {name: getattr(trial, name) for name in ("scenario", "batch", "time", "task", "caches")}
        found: Subject = self._subject("timed", trial.session, seed=SEED, data_dir=self.context.data_dir, **point)
        return found

    def evidence(self, trial: Trial, compute_s: float, steps: int, witness: Witness) -> audits.Evidence:
        """What was seen beside its calls."""
        return self._evidence(trial.session, compute_s, steps, witness)


class OpenVariant:
    """A variant that is open in this process.

    Attributes:
        trial: what was planned: `variant`, `task`, `size`, `dtype`, `device`, `threads` and, of a latency, `scenario`,
            `batch` and `time`.
        session: it, with probe weights; see `harness.Session`.
        problem: why it is not what it says, once that was found.
    """

    def __init__(self, worker: InProcess, trial: Trial, session: Session, was_resting: bool) -> None:
        self.trial = trial
        self.session = session
        self.problem = ""
        self._worker = worker
        self._was_resting = was_resting
        self._makers: dict[tuple[int, int], timing.FreshInputs] = {}

    def __str__(self) -> str:
        return str(self.trial.variant)

    @property
    def size(self) -> LayerSize:
        """The layer's size."""
        return self.trial.size

    def inputs(self, batch: int, time: int) -> Inputs:
        """Standard normal inputs (B, T, I) without a state, other ones each time."""
        shape = (batch, time, self.size.input_size)
        make = self._makers.setdefault(shape[:2], timing.FreshInputs(str(self), shape, self.trial.dtype, SEED))
        return make()

    def check(self) -> None:
        """Hold the session against the float64 oracle, as `harness run` does.

        Raises:
            Wrong: it computes something else.
            WorkerFailure: there is nothing to hold it against: the yardstick's worker failed.
        """
        self._check_parity("")

    def time(self, loop: Callable[[Callable[[], None]], object], windows: Windows, is_timed: bool) -> None:
        """Have a tool call the trial's scenario in its loop; parity before and after it, and the audits, as in a run.

        Every call gets a fresh input. Inputs are made and prepared before the window, and outputs fetched after it.

        Args:
            loop: calls what it is given as often as it likes.
            windows: the clock that it reads.
            is_timed: whether it is timing, and not only trying whether it works. Then calls are warmed up, and their
                times are audited; otherwise only what they compute.

        Raises:
            Wrong: parity or an audit failed.
            WorkerFailure: as `check`.
        """
        self._check_parity("")
        self._check_training("before", "")
        subject = self._worker.subject(self.trial)
        calls = Calls(subject, windows, is_timed)
        if is_timed:
            timing.warm_up(subject, self._worker.context.plan.suite.latency.seconds)
        with timing.no_garbage_collection():
            try:
                loop(calls)
                is_repeated = is_timed and subject.is_session
                ratios = timing.repeat_ratios(subject, REPEATED_PAIRS) if is_repeated else []
            finally:
                gc.unfreeze()
        self._check_parity("after timing: ")
        self._check_training("after", "after timing: ")
        self._audit(subject, calls.witness, median(calls.elapsed_ns) / 1e9 if is_timed else 0.0, ratios)

    def threads_not_held(self) -> list[str]:
        """Pools of native libraries in this process that have another number of threads than the trial: `name: 4`."""
        others = (pool for pool in threadpool_info() if pool["num_threads"] != self.trial.threads)
        return sorted({f"{Path(pool['filepath']).name}: {pool['num_threads']}" for pool in others})

    def _check_parity(self, when: str) -> None:
        verification = self._worker.verification
        verification.find_yardstick(self.trial)
        self._require(verification.check(self._worker, self.trial, "first")[0], when)

    def _check_training(self, moment: str, when: str) -> None:
        """Before timing its gradients, after it the very trainer that was timed."""
        if self.trial.scenario == "training-step":
            self._require(self._worker.verification.check_training(self._worker, self.trial, moment)[0], when)

    def _audit(self, subject: Subject, witness: Witness, compute_s: float, ratios: list[float]) -> None:
        """Without a time only what was computed can be judged; of clocks only a device's, for this is the engine."""
        verification, worker, trial = self._worker.verification, self._worker, self.trial
        steps = subject.steps or (trial.batch or 1) * (trial.time or 1)
        seen = [worker.evidence(trial, compute_s, steps, witness)]
        outcome, _ = verification.audit(trial, seen, ratios) if compute_s else verification.audit_served(trial, seen)
        self._require(outcome)
        if self._was_resting:  # or else nobody knows whose work goes on
            self._require(verification.unrest(worker)[0] or Outcome())

    def _require(self, outcome: Outcome, when: str = "") -> None:
        if outcome.status != "ok":
            self.problem = f"{outcome.status}: {when}{outcome.reason}"
            raise Wrong(self.problem)
