"""What tables hold: the version, the columns with their types, and the statuses that a trial can end in."""

from __future__ import annotations

SCHEMA_VERSION = 7
RUN_FILE = "run.json"  # in a run's folder; it says which version wrote it
UNKNOWN = "unknown"  # in a column of a trial that cannot be empty, of a run that was imported
LARGEST_WHOLE = 2**53  # up to here a float can count
READABLE_VERSIONS = (5, 6, 7)  # an older run lacks what it could not know, and is read
STATUSES = {
    "ok": "finished; its numbers stand",
    "wrong": "parity failed: it does not compute what its architecture says, so its latency is withheld; "
    "for a training step, its gradients are wrong; an audit of the timed calls failed; or it computes in fewer bits "
    "and loses too much accuracy",
    "unsupported": "the runtime says it cannot do this, with its reason",
    "failed": "an exception, with its type, message and last frames; more output than `worker_output_mib`; work that "
    "goes on after a call has returned; or a machine too busy to offer a load in time",
    "crashed": "the worker process died, with the signal or exit code",
    "timed-out": "took longer than `trial_seconds`",
    "out-of-memory": "held more memory than `worker_memory_gib`, or could get no more",
    "skipped": "not tried, because something it needs is missing, with what",
}
GOOD_STATUSES = frozenset({"ok", "unsupported", "skipped"})

TABLES = (  # of a run, as its report gives them; raw samples are not among them
    *("summary", "latency", "calibration", "trials", "parity", "costs", "gradients", "audits", "scores"),
    *("curves", "instances", "processes", "matrices", "machine", "loads", "capacity"),
)
TRIAL_COLUMNS = [
    *("trial", "kind", "variant", "model", "runtime", "python", "architecture", "task"),
    *("distribution", "distribution_version", "runtime_distribution", "runtime_distribution_version"),
    *("task_distribution", "task_distribution_version"),
    *("input_size", "hidden_size", "num_layers", "device", "dtype", "compute_dtype", "threads"),
    *("seed", "trained_by", "scenario"),
    *("batch", "time", "caches", "baseline", "twin", "status", "reason", "log"),
]
PARITY_COLUMNS = [
    *("trial", "process", "moment", "case", "part", "rmse", "yardstick_rmse", "reference_rms", "max_abs_error"),
    *("yardstick", "problem"),
]
COST_COLUMNS = [
    *("trial", "open_s", "import_s", "parameters", "batch", "time", "first_call_s", "export_s", "compile_s"),
    *("model_bytes", "peak_memory_bytes", "peak_device_bytes", "flops", "energy_j", "device_energy_j"),
]
GRADIENT_COLUMNS = ["trial", "process", "what", "error", "allowed", "expected"]
AUDIT_COLUMNS = ["trial", "process", "audit", "value", "allowed", "problem"]
SCORE_COLUMNS = ["trial", "metric", "score", "trivial_score", "rows", "trainer_score", "agreeing_rows"]
CURVE_COLUMNS = ["trial", "step", "epoch", "training_loss", "score"]
LOAD_COLUMNS = [
    *("trial", "slice", "probe", "rate_per_s", "streams", "requests", "bound_s", "p50_s", "p99_s", "p99_bound_s"),
    *("misses", "generator_p99_s", "mean_batch", "busy_s", "real_time_factor", "verdict"),
    *("judged", "growth_s", "is_confirmation", "is_capped"),
]
INSTANCE_COLUMNS = ["trial", "slice", "process", "instance", "warmup_calls", "is_steady", "rows", "steps"]
PROCESS_COLUMNS = [
    *("slice", "process", "task", "runtime", "python", "trial", "started_s", "seconds"),
    *("canary_s", "overhead_s", "overhead_end_to_end_s", "disturbed_share"),
    *("run_delay_s", "involuntary_switches", "voluntary_switches", "steal_share", "other_busy_share"),
    *("page_faults_major", "page_faults_minor", "gc_collections", "frequency_mhz", "governor", "temperature_c"),
    *("cpus", "clock", "clock_reason", "device_name", "device_clock_mhz", "device_memory_clock_mhz"),
    "device_temperature_c",
    *("device_power_w", "device_throttling"),
]
MATRIX_COLUMNS = ["trial", "matrix", "rows", "columns"]
MACHINE_COLUMNS = ["device", "dtype", "threads", "what", "working_set_bytes", "flops_per_s", "bytes_per_s"]
TEXT_PROCESS_COLUMNS = (
    *(
        "task",
        "runtime",
        "python",
        "trial",
        "governor",
        "cpus",
        "clock",
        "clock_reason",
        "device_name",
        "device_throttling",
    ),
)
NUMERIC_PROCESS_COLUMNS = [c for c in PROCESS_COLUMNS if c not in TEXT_PROCESS_COLUMNS]
FLOAT_COLUMNS = {
    "parity": ["rmse", "yardstick_rmse", "reference_rms", "max_abs_error"],
    "costs": ["open_s", "import_s", "export_s", "first_call_s", "compile_s", "flops", "energy_j", "device_energy_j"],
    "gradients": ["error", "allowed", "expected"],
    "audits": ["value", "allowed"],
    "scores": ["score", "trivial_score", "trainer_score"],
    "curves": ["epoch", "training_loss", "score"],
    "instances": [],
    "matrices": [],
    "loads": [name for name in LOAD_COLUMNS if name.endswith("_s")] + ["mean_batch", "real_time_factor"],
}
WHOLE_COLUMNS = {
    "costs": ["batch", "time", "parameters", "model_bytes", "peak_memory_bytes", "peak_device_bytes"],
    "scores": ["agreeing_rows"],
    "instances": ["slice", "process", "instance", "warmup_calls", "rows", "steps"],
    "matrices": ["rows", "columns"],
    "loads": ["slice", "probe", "streams", "requests", "misses", "judged"],
}
