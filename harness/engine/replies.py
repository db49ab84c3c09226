"""What the answers of a worker look like. A plugin may have changed what its worker says, so each is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from harness.audits import Evidence
from harness.engine.noise import Noise
from harness.gradients import GradientCheck
from harness.parity import Observation

Count = Annotated[int, Field(ge=0, le=2**53)]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # and not negative
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Nothing = Annotated[dict[str, Any], Field(max_length=0)]
Text = Annotated[str, Field(max_length=10_000)]


@dataclass(frozen=True)
class Opening:
    """How long opening a session took, how much of it was importing, and how many weights it has."""

    open_s: Finite
    import_s: Finite
    parameters: Count


@dataclass(frozen=True)
class FirstCall:
    """How long a session's first call took."""

    first_call_s: Finite


@dataclass(frozen=True)
class Costs:
    """What a session has cost after its first call; see `Worker.costs`."""

    export_s: Finite | None
    compile_s: Finite | None
    model_bytes: Count | None
    peak_memory_bytes: Count | None
    peak_device_bytes: Count | None
    flops: Finite


@dataclass(frozen=True)
class Energy:
    """What energy a call takes."""

    energy_j: Finite | None
    device_energy_j: Finite | None


@dataclass(frozen=True)
class Rows:
    """How many rows a task's data has."""

    train_rows: Count
    test_rows: Count


@dataclass(frozen=True)
class Environment:
    """What an interpreter is."""

    python: Text
    versions: dict[Text, Text]
    commits: dict[Text, Text | None] = field(default_factory=dict)  # an older harness may not tell these
    engine: Text = ""


@dataclass(frozen=True)
class CurvePoint:
    """A point of a learning curve; None for what is not finite."""

    step: Count
    epoch: float
    training_loss: float | None
    score: float | None


@dataclass(frozen=True)
class Training:
    """What came of a training."""

    score: float
    rows: Count
    trivial_score: float
    curve: list[CurvePoint]


@dataclass(frozen=True)
class Evaluation:
    """The score of a variant on trained weights."""

    score: float
    rows: Count
    trivial_score: float
    agreeing_rows: Count | None


@dataclass(frozen=True)
class Samples:
    """Timed calls, and how sessions warmed up; see `Worker.sample`."""

    samples: list[tuple[Count, Literal["compute", "end-to-end"], Count, Count, Count, Finite, Finite, bool | None]]
    warmup: list[tuple[Count, Count, bool]]
    evidence: list[Evidence]
    work: list[tuple[Count, Count]]
    clock: Literal["host", "device"]


@dataclass(frozen=True)
class Unloaded:
    """How long one request takes while no other waits."""

    service_s: Finite


@dataclass(frozen=True)
class UnderLoad:
    """How requests fared under a load; see `Worker.under_load`."""

    latencies_s: Annotated[list[Finite], Field(min_length=1)]
    delays_s: list[Finite]
    calls: Annotated[int, Field(ge=1, le=2**53)]
    busy_s: Finite
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class Timed(Noise):
    """What one process timed besides the variants, and the noise around it; see `worker.Timing`."""

    started_s: Finite
    seconds: float
    canary_s: float | None
    overhead_s: float | None
    overhead_end_to_end_s: float | None
    disturbed_share: float | None
    clock: Literal["host", "device"]
    clock_reason: Text | None
    device_name: Text | None
    device_clock_mhz: float | None
    device_memory_clock_mhz: float | None
    device_temperature_c: float | None
    device_power_w: float | None
    device_throttling: Text | None


@dataclass(frozen=True)
class Idle:
    """How many cores a worker keeps busy while nothing is asked of it."""

    busy_cores: Finite


@dataclass(frozen=True)
class Matrix:
    """A weight matrix of an architecture."""

    matrix: Text
    rows: Count
    columns: Count


@dataclass(frozen=True)
class Attained:
    """What the machine did at best; see `harness.limits.Attained`."""

    what: Literal["flops", "read"]
    working_set_bytes: Count
    flops_per_s: Rate | None
    bytes_per_s: Rate | None


@dataclass(frozen=True)
class Conformance:
    """Whether a rule of the contract is kept, and why not."""

    check: Text
    status: Literal["ok", "wrong"]
    reason: Text


FORMS: dict[str, Any] = {  # by request
    "environment": Environment,
    "report": Nothing,
    "load": Rows,
    "open": Opening,
    "first_call": FirstCall,
    "costs": Costs,
    "energy": Energy,
    "parity": Annotated[list[Observation], Field(min_length=1)],
    "equations": Annotated[list[Observation], Field(min_length=1)],
    "matrices": Annotated[list[Matrix], Field(max_length=10_000)],
    "machine": Annotated[list[Attained], Field(min_length=1)],
    "conformance": Conformance,
    "gradients": Annotated[list[GradientCheck], Field(min_length=1)],
    "timed_trainer": Annotated[list[GradientCheck], Field(min_length=1)],
    "train": Training,
    "evaluate": Evaluation,
    "start_timing": Nothing,
    "sample": Samples,
    "finish_timing": Timed,
    "unloaded": Unloaded,
    "under_load": UnderLoad,
    "idle": Idle,
    "release": Nothing,
}


def checked(do: str, result: Any) -> Any:
    """The result of a request, as plain data of the form that its reader relies on.

    Args:
        do: the request: the name of a method of `harness.engine.worker.Worker`.
        result: what came back for it.

    Raises:
        ValueError: it has another form; the text says where, on one line.
    """
    form = _adapter(do)
    try:
        return form.dump_python(form.validate_python(result))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from None


@cache
def _adapter(do: str) -> TypeAdapter[Any]:
    return TypeAdapter(FORMS[do])
