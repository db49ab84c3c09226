"""How fast a forward pass could be on this machine: the roofline of a recurrent layer, and a latency's share of it.

A bound is made of what the machine was seen to do (`harness.engine.machine`) and of what no implementation can leave
out. Source: Williams, Waterman & Patterson, "Roofline: an insightful visual performance model for multicore
architectures", CACM 2009; here with a bandwidth for every working set in place of one for the main memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2, "int8": 1}  # of a number in a format
COMPUTE, RECURRENT, INPUT, MOVED = "compute", "recurrent weights", "input weights", "inputs and outputs"
WEIGHT = re.compile(r"(?P<owner>(?:.*\.)?)weight_(?P<kind>ih|hh)_(?P<place>.+)")  # as `torch.nn.LSTM` names them
BOUNDED = ("single-stream", "offline")  # the scenarios whose calls are forward passes over B rows of T steps each
LIMIT_COLUMNS = ("bound_s", "limited_by", "attainable", "attainable_low", "attainable_high")


@dataclass(frozen=True, slots=True)
class Attained:
    """What the machine did at best in one thing that was measured.

    Attributes:
        what: `flops`, products of square matrices; `read`, reading the same memory again and again.
        working_set_bytes: how much memory that was on.
        flops_per_s: floating-point operations a second; None of `read`.
        bytes_per_s: bytes a second; None of `flops`.
    """

    what: Literal["flops", "read"]
    working_set_bytes: int
    flops_per_s: float | None = None
    bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine attains with one dtype and number of threads.

    Attributes:
        flops_per_s: of the best matrix product; None if it is not known.
        bytes_per_s: what is read a second, by the working set in bytes; at least one.
    """

    flops_per_s: float | None
    bytes_per_s: Mapping[int, float]

    def read(self, working_set_bytes: float) -> float:
        """At how many bytes a second so much memory can be read again and again, at the most.

        That of the largest measured working set that is no larger, for less memory is nearer. What more memory was
        read at counts as well: a small set measures too slow where starting takes as long as reading.
        """
        sizes = sorted(self.bytes_per_s)
        nearest = max((size for size in sizes if size <= working_set_bytes), default=sizes[0])
        return max(self.bytes_per_s[size] for size in sizes if size >= nearest)


@dataclass(frozen=True, slots=True)
class Pass:
    """One layer in one direction.

    Attributes:
        rows: of both weight matrices: gates times H.
        input_size: I, the columns of the matrix that is multiplied by inputs, W (rows, I).
        hidden_size: H, the columns of the matrix that is multiplied by the state, U (rows, H).
    """

    rows: int
    input_size: int
    hidden_size: int


@dataclass(frozen=True, slots=True)
class Limit:
    """The least time that a forward pass can take, in seconds, and what most of it goes to.

    Attributes:
        bound_s: the bound.
        binds: `compute`, `recurrent weights`, `input weights` or `inputs and outputs`.
    """

    bound_s: float
    binds: str


def passes(matrices: Mapping[str, tuple[int, int]]) -> list[Pass]:
    """The layers and directions that weight matrices, (rows, columns) by name, belong to.

    A pass is a `weight_ih_<place>` with the `weight_hh_<place>` of the same owner, as `torch.nn.LSTM` and
    `torch.nn.GRU` name them. Of other matrices it is not known how often they are used, so they are left out.
    """
    found: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
    for name, shape in matrices.items():
        if match := WEIGHT.fullmatch(name):
            found.setdefault((match["owner"], match["place"]), {})[match["kind"]] = shape
    pairs = [(pair["ih"], pair["hh"]) for pair in found.values() if len(pair) == 2]
    return [Pass(rows, inputs, hidden) for (rows, inputs), (same, hidden) in pairs if rows == same]


def limit(
    parts: Sequence[Pass], batch: int, time: int, machine: Machine, dtype: str, compute_dtype: str
) -> Limit | None:
    """The least time of one forward pass over a batch of B rows and T steps; None if there is nothing to bound it by.

    Of each pass, with s bytes a weight, products at P FLOP/s and reading at BW(bytes):

        F = 2 T B rows (I + H)
        t = max(F / P, T |U| / BW(|U|) + |W| / BW(|W|) + |A| / BW(|A|)),  |U| = rows H s, |W| = rows I s

    and the passes one after the other. W is read once: its products do not depend on the state, so those of all steps
    can be made together. U is read at every step, because a step needs the state that the one before it leaves. A is
    what has to come and go, x and y: T B (I + H) numbers of the dtype.

    Args:
        parts: of `passes`.
        batch, time: B and T.
        machine: what was measured in the dtype.
        dtype: of the arrays that are given and taken.
        compute_dtype: the format of the weights; in one with fewer bits the products were not measured and do not
            count.
    """
    if not parts:
        return None
    spent = dict.fromkeys((COMPUTE, RECURRENT, INPUT, MOVED), 0.0)
    for part in parts:
        recurrent, once = (
            part.rows * columns * BYTES[compute_dtype] for columns in (part.hidden_size, part.input_size)
        )
        moved = time * batch * (part.input_size + part.hidden_size) * BYTES[dtype]
        memory = {
            RECURRENT: time * recurrent / machine.read(recurrent),
            INPUT: once / machine.read(once),
            MOVED: moved / machine.read(moved),
        }
        flops = 2.0 * time * batch * part.rows * (part.input_size + part.hidden_size)
        compute = flops / machine.flops_per_s if machine.flops_per_s and compute_dtype == dtype else 0.0
        for name, seconds in ({COMPUTE: compute} if compute > sum(memory.values()) else memory).items():
            spent[name] += seconds
    return Limit(sum(spent.values()), max(spent, key=lambda name: spent[name]))


def limits(
    machine: Sequence[Mapping[str, Any]], matrices: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]
) -> dict[str, Limit]:
    """The limit of every forward latency trial that has one, by trial.

    Args:
        machine, matrices, trials: rows of the tables of these names; see `harness.store`.
    """
    if not (machines := _machines(machine)):
        return {}
    found = {}
    for trial, parts in _forward(matrices, trials):
        here = machines.get(machine_key(trial))
        own = limit(parts, trial["batch"], trial["time"], here, *_formats(trial)) if here else None
        if own is not None:
            found[trial["trial"]] = own
    return found


def forward_work(
    matrices: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[float, float]]:
    """What a call of every forward latency trial must do, by trial: floating-point operations, and bytes it reads.

    The same F, and T |U| + |W| + |A|, as in `limit`, over all passes.
    """
    found = {}
    for trial, parts in _forward(matrices, trials):
        rows, (dtype, compute_dtype) = trial["batch"] * trial["time"], _formats(trial)
        flops = sum(2.0 * rows * part.rows * (part.input_size + part.hidden_size) for part in parts)
        weights = sum(part.rows * (trial["time"] * part.hidden_size + part.input_size) for part in parts)
        moved = sum(rows * (part.input_size + part.hidden_size) for part in parts)
        found[trial["trial"]] = flops, float(weights * BYTES[compute_dtype] + moved * BYTES[dtype])
    return found


def _forward(
    matrices: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], list[Pass]]]:
    """The latency trials that are forward passes of a known shape, with their layers and directions.

    Where caches are emptied there is none: a bound counts on what they hold.
    """
    layers = {trial["trial"]: _layer(trial) for trial in trials}
    shapes: dict[Any, dict[str, tuple[int, int]]] = {}
    for row in matrices:
        if _is_positive(row["rows"]) and _is_positive(row["columns"]):
            own = shapes.setdefault(layers[row["trial"]], {})
            own[str(row["matrix"])] = (int(row["rows"]), int(row["columns"]))
    for trial in trials:
        is_forward = trial["kind"] == "latency" and trial["scenario"] in BOUNDED and trial.get("caches") != "cold"
        is_shaped = (
            _is_positive(trial["batch"]) and _is_positive(trial["time"]) and BYTES.keys() >= set(_formats(trial))
        )
        if is_forward and is_shaped and (parts := passes(shapes.get(_layer(trial), {}))):
            yield trial, parts


def _formats(trial: Mapping[str, Any]) -> tuple[str, str]:
    """The dtype of what is given and taken, and the format of the weights."""
    return trial["dtype"], trial["compute_dtype"] or trial["dtype"]


def machine_key(row: Mapping[Any, Any]) -> tuple[str, str, int]:
    """Device, dtype and threads of a row of the machine or of the trials table."""
    return row["device"], row["dtype"], row["threads"]


def products(rows: Sequence[Mapping[Any, Any]]) -> dict[tuple[str, str, int], float]:
    """FLOP/s of the best matrix product that was measured, by device, dtype and threads."""
    best: dict[tuple[str, str, int], float] = {}
    for row in rows:
        if row["what"] == "flops" and _is_positive(row["flops_per_s"]):
            best[machine_key(row)] = max(best.get(machine_key(row), 0.0), row["flops_per_s"])
    return best


def limit_columns(limit: Limit | None, latency_s: float, low_s: float, high_s: float) -> dict[str, Any]:
    """`LIMIT_COLUMNS` of a row: the bound, what binds, and the bound over the latency with its interval, not clipped.

    A bound is a constant, so the ends of the share's interval are those of the latency's.
    """
    if limit is None:
        return dict.fromkeys(LIMIT_COLUMNS, math.nan) | {"limited_by": None}
    shares = [limit.bound_s / seconds if seconds else math.inf for seconds in (latency_s, high_s, low_s)]
    return dict(zip(LIMIT_COLUMNS, (limit.bound_s, limit.binds, *shares), strict=True))


def _machines(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, int], Machine]:
    """What was measured, by device, dtype and threads; without any reading there is no machine."""
    reads: dict[tuple[str, str, int], dict[int, float]] = {}
    for row in rows:
        if row["what"] == "read" and _is_positive(row["bytes_per_s"]) and _is_positive(row["working_set_bytes"]):
            own, size = reads.setdefault(machine_key(row), {}), int(row["working_set_bytes"])
            own[size] = max(own.get(size, 0.0), row["bytes_per_s"])
    best = products(rows)
    return {key: Machine(best.get(key), own) for key, own in reads.items()}


def _is_positive(value: Any) -> bool:
    """Whether it is a number and above 0; what a damaged journal lost is none."""
    return isinstance(value, int | float) and value > 0


def _layer(trial: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides the shapes of a variant's weights."""
    return tuple(trial[name] for name in ("architecture", "input_size", "hidden_size", "num_layers"))
