"""What a plugin and the harness agree on: frozen records and small protocols.

Shapes use these letters: B batch, T time, I input size, H hidden size, L layers, D directions (1 or 2).
Arrays that cross the contract are NumPy arrays; what happens between `prepare` and `fetch` is the runtime's own.
Importing this module imports nothing heavy, so importing a plugin stays free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    FloatArray = NDArray[np.floating[Any]]
    IntArray = NDArray[np.integer[Any]]

CONTRACT_VERSION = 1  # what this module says to plugins; a change that breaks one of them makes it 2
TaskKind = Literal["classification", "regression"]
COMPUTE_DTYPES = ("bfloat16", "float16", "int8")  # the formats with fewer bits that a runtime may say it computes in
RAGGED_SCENARIOS = ("padded", "bucketed", "packed")  # of batches of rows of real lengths
SESSION_CLAIMS = ("compile_seconds", "export_seconds", "size_bytes", "peak_device_bytes")
NAME = r"[a-z0-9][a-z0-9._-]{0,63}"  # of a model, say: safe in a path, a table, a pattern and a shell
MOST_NAME = 200  # characters that are shown of a stranger's name
MOST_REASON = 1000  # and of a reason


class HarnessError(Exception):
    """A problem the user can act on. Its text is one line: who, what, and the next step."""


class Unsupported(HarnessError):
    """A runtime says it cannot do what was asked (device, dtype, model). The reason becomes the row's reason."""


class DataError(HarnessError):
    """A data set is missing or damaged. The text names the file, what was expected and where to put it."""


def printable(value: object, most: int = MOST_NAME) -> str:
    """Anything's text on one line of at most so many characters that move no cursor and turn no line around.

    White space becomes single spaces, what cannot be printed becomes an escape (`\\x1b`), and an ellipsis stands for
    what is left out. The time it takes does not grow with the text.
    """
    try:
        text = str(value)
        start = text[: 4 * most]  # white space folds, so a little more than will be shown
        folded = " ".join(start.split())
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in folded)
        return shown if len(shown) <= most and len(start) == len(text) else shown[: most - 1] + "…"
    except BaseException:  # a stranger's __str__ may raise anything
        return "(its text cannot be shown)"


def one_line(error: BaseException) -> str:
    """What an exception says, on one bounded line, even if it cannot say it; a HarnessError needs no type before it."""
    text = printable(error, MOST_REASON)
    kind = "" if isinstance(error, HarnessError) else f"{type(error).__name__}: "
    return printable(f"{kind}{text or 'no message'}", MOST_REASON)


@dataclass(frozen=True, slots=True)
class LayerSize:
    """The size of a recurrent layer: input features, hidden units and stacked layers."""

    input_size: int
    hidden_size: int
    num_layers: int = 1


@dataclass(frozen=True, slots=True)
class Inputs:
    """What one forward pass takes.

    Attributes:
        x: (B, T, I), batch first.
        state: the initial state, each array (L*D, B, H); for an LSTM `(h_0, c_0)`, for a GRU `(h_0,)`.
            None means zeros.
        lengths: (B,) integers in 1..T: row b is real up to lengths[b], the rest is padding. None means all T.
    """

    x: FloatArray
    state: tuple[FloatArray, ...] | None = None
    lengths: IntArray | None = None


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one forward pass gives.

    Attributes:
        y: (B, T, D*H), the last layer's hidden state at every step; zero where the input was padding.
        state: the final state, each array (L*D, B, H), after each row's own last real step; for an LSTM
            `(h_n, c_n)`, for a GRU `(h_n,)`. Layer l, direction d stands at l*D + d, as in `torch.nn.LSTM`.
    """

    y: FloatArray
    state: tuple[FloatArray, ...]


@dataclass(frozen=True)
class Architecture:
    """The mathematics that several models implement. They share weights and an oracle.

    Attributes:
        name: `lstm`, `bilstm`, ...
        directions: 1, or 2 for a bidirectional architecture.
        weight_shapes: the name and shape of every weight array of a layer of the given size.
        reference: the oracle: `reference(weights, inputs, size) -> Outputs`, computed in the dtype of the weights.
        state_names: one name per state array, the summary (`h`) first.
        weights: `weights(size)`, the ones to check, time and score with, in standard names; `head.weight` (outputs,
            D*H) and `head.bias` may be among them. None: random ones to check and time with, trained ones to score.
    """

    name: str
    directions: int
    weight_shapes: Callable[[LayerSize], Mapping[str, tuple[int, ...]]]
    reference: Callable[[Mapping[str, FloatArray], Inputs, LayerSize], Outputs]
    state_names: tuple[str, ...] = ("h", "c")
    weights: Callable[[LayerSize], Mapping[str, FloatArray]] | None = None


def same_arrays(weights: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
    """The door of a model whose parameters already have the standard names and layout."""
    return weights


@dataclass(frozen=True)
class Model:
    """One implementation of an architecture.

    Attributes:
        name: unique among all plugins, for example `torch-lstm`.
        architecture: what it computes; `harness.LSTM`, `BILSTM`, `GRU`, `BIGRU` or the plugin's own.
        framework: what kind of object `build` returns (`torch`, `numpy`, ...); a runtime says which it accepts.
        build: `build(input_size=, hidden_size=, num_layers=)` returns a freshly initialised layer, called as
            `layer(x, state=None) -> (y, state)` exactly like `torch.nn.LSTM(batch_first=True)`;
            a torch layer with one state array like `torch.nn.GRU`, where state is that array and no tuple.
        takes_lengths: True if the layer also takes a third argument, `lengths` (see `Inputs.lengths`).
            Otherwise runtimes call it once per distinct length.
        to_parameters: the door for weights: from the standard names, layout and gate order of `torch.nn.LSTM`
            (i, f, g, o) or `torch.nn.GRU` (r, z, n), with two biases and `_reverse`, to the layer's own
            parameter names and layout. Pure NumPy.
        from_parameters: the way back; `to_parameters(from_parameters(p))` equals `p`.
        yardstick: True for the one model of an architecture whose rounding error the others are held against.
        description: one line for `harness list`.
        size: the only size that `build` gives; None for any.
    """

    name: str
    architecture: Architecture
    framework: str
    build: Callable[..., Any]
    takes_lengths: bool = False
    to_parameters: Callable[[Mapping[str, FloatArray]], Mapping[str, FloatArray]] = same_arrays
    from_parameters: Callable[[Mapping[str, FloatArray]], Mapping[str, FloatArray]] = same_arrays
    yardstick: bool = False
    description: str = ""
    size: LayerSize | None = None


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session is to be opened.

    Attributes:
        size: the layer's size.
        device: `cpu`, or a device name the runtime knows (`cuda`, `cuda:1`, `mps`, ...).
        dtype: `float32` or `float64`: the dtype of the inputs given and of the arithmetic done.
        threads: how many threads one call may use.
        cache_dir: a folder where a runtime may keep what is costly to make (an exported graph) for the sessions
            of the same run. None means nothing is kept.
    """

    size: LayerSize
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    cache_dir: Path | None = None


class Session(Protocol):
    """A variant with weights, on a device, ready to call.

    `run` is what the compute clock times; the end-to-end clock times all three.
    Every session accepts `Inputs.lengths`; `harness.ByLength` gives that to those that cannot.
    A session may have these attributes (`SESSION_CLAIMS`), which are looked at after it was called; None says nothing:

    - `compile_seconds`: how long it has compiled since it was opened, as a float.
    - `export_seconds`: how long opening it waited for the model to be exported: 0.0 where an export was found.
    - `size_bytes`: the size of the file, or of all files, with the model and its weights that it runs.
    - `peak_device_bytes`: the most memory of the device that it has held since it was opened, where that is not the
      host's.
    """

    def prepare(self, inputs: Inputs) -> Any:
        """Bring the arrays to the device, in the runtime's own form."""

    def run(self, prepared: Any) -> Any:
        """Compute. Returns only when the work is finished."""

    def fetch(self, raw: Any) -> Outputs:
        """Bring the result back as NumPy arrays."""

    def close(self) -> None:
        """Free what the session holds."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a device says of itself at one moment; None where it does not.

    Attributes:
        name: what it is called, by model.
        clock_mhz, memory_clock_mhz: its processors' and its memory's clock, in MHz.
        temperature_c: in degrees Celsius.
        power_w: what it draws, in watts.
        throttling: why its clock is held down, in the system's own words with commas between; empty if it is not.
    """

    name: str | None = None
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    throttling: str | None = None


class Device(Protocol):
    """A device that may work on after a call has returned, and has a clock of its own.

    One of these stands around the calls of every session that is timed on the device, whatever its runtime is.
    """

    def drain(self) -> None:
        """Wait until it has finished all that it was given, by whomever and in whatever queue."""

    def mark(self) -> Any:
        """A moment on its clock: when it gets there. Of a drained device that is now."""

    def elapsed_ns(self, begin: Any, end: Any) -> int:
        """Nanoseconds of its clock from one mark to a later one; waits for that."""

    def evict(self) -> None:
        """Leave nothing in its caches that a session has put there. It need not wait."""

    def state(self) -> DeviceState:
        """What it says of itself now. Called while nothing is timed."""

    def energy_j(self) -> float | None:
        """Joules that it has used since some moment; None where it does not count them."""


@dataclass(frozen=True)
class Accelerator:
    """Devices beside the host's processor: how to wait for them, and to read their clock.

    Attributes:
        name: unique among all plugins, for example `torch-accelerator`.
        description: one line for `harness list`.
        open: `open(device)` gives the `Device` of that name, such as `cuda:1`. Called in a worker that is going to
            time there. Raises Unsupported where that is none of these, or is not here.
    """

    name: str
    description: str
    open: Callable[[str], Device]


class Runtime(Protocol):
    """Software that executes models.

    Attributes:
        name: unique among all plugins, for example `eager`.
        frameworks: the model frameworks it accepts.
        description: one line for `harness list`.
        compute_dtype: optional: one of `COMPUTE_DTYPES`, of a runtime that rounds to it what it multiplies. Its
            sessions take and give float32 all the same. They may be off by what that format is worth
            (`harness.rounding`), and their accuracy is compared with that of the variant that trained the weights; so
            such a runtime does not train.
        needs_accelerator: optional: True of a runtime that has nothing to run on a CPU. There it is planned only if it
            is asked for by its name.
    """

    @property
    def name(self) -> str: ...
    @property
    def frameworks(self) -> frozenset[str]: ...
    @property
    def description(self) -> str: ...

    def open(self, model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> Session:
        """Open a session with weights in the standard names and layout, and in the dtype of the options.

        Raises:
            Unsupported: the model, device or dtype is not for this runtime.
        """


def needs_accelerator(runtime: Runtime) -> bool:
    """Whether a runtime has nothing to run on a CPU."""
    return bool(getattr(runtime, "needs_accelerator", False))


def compute_dtype(runtime: Runtime, dtype: str) -> str:
    """The format in which a runtime computes when it is given arrays of a dtype: its own, or else that dtype."""
    return getattr(runtime, "compute_dtype", None) or dtype


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a task trains.

    Attributes:
        hidden_size, num_layers: the layer's size; its input size is the task's.
        optimizer: `adam` or `sgd`, with that framework's other defaults (Adam: Kingma & Ba 2015, betas 0.9 and
            0.999, epsilon 1e-8; sgd: no momentum).
        learning_rate: its step size.
        batch_size: rows a step; a last, smaller batch of an epoch is used too.
        epochs: passes over the training split, each in a new seeded order.
        clip_norm: the global gradient norm is clipped to this; None means never.
        forget_bias: added to the forget gate's bias after the model's own initialisation; None leaves it alone.
    """

    hidden_size: int = 128
    num_layers: int = 1
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    batch_size: int = 32
    epochs: int = 1
    clip_norm: float | None = None
    forget_bias: float | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of a data set.

    Attributes:
        x: (N, T, I) float32.
        targets: (N,) int64 classes, or (N, outputs) float32 for regression.
        lengths: (N,) int64, or None when every row has all T steps.
    """

    x: FloatArray
    targets: Array
    lengths: IntArray | None = None

    def rows(self, index: Any) -> Split:
        """The rows that a NumPy index picks."""
        lengths = None if self.lengths is None else self.lengths[index]
        return Split(self.x[index], self.targets[index], lengths)

    def batches(self, size: int) -> Iterator[Split]:
        """The rows in order, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self.x), size):
            yield self.rows(slice(start, start + size))


@dataclass(frozen=True, slots=True)
class Data:
    """A loaded data set: what is trained on and what is scored."""

    train: Split
    test: Split


@dataclass(frozen=True)
class Task:
    """Data, split, target, metric and training recipe.

    Attributes:
        name: unique among all plugins, for example `digits-rows`.
        kind: `classification` (metric: accuracy) or `regression` (metric: mean squared error).
        input_size: I.
        time: T, the longest row; latency is measured at this length.
        outputs: how many classes, or how many values are regressed.
        load: `load(data_dir)` returns the data; `data_dir` is the user's folder of data sets, one sub-folder
            each, or None. Raises DataError. The same data on every call.
        recipe: how it trains.
        description: one line for `harness list`.
        ragged: True if its rows have lengths of their own, so that batches of real lengths can be timed.
    """

    name: str
    kind: TaskKind
    input_size: int
    time: int
    outputs: int
    load: Callable[[Path | None], Data]
    recipe: Recipe = field(default_factory=Recipe)
    description: str = ""
    ragged: bool = False


@dataclass(frozen=True)
class ReportFormat:
    """A form in which a run's tables can be had as files.

    Attributes:
        name: unique among all plugins, for example `parquet`; the core's own are csv, json, latex, markdown, html.
        description: one line for `harness list`.
        write: `write(run, folder)` writes files into a folder that is new and empty. `run` is a `harness.Run`, read
            from its own folder, which must stay as it is. Called in a worker; what it raises is told to the user, and
            nothing of what it wrote is kept then.
    """

    name: str
    description: str
    write: Callable[[Any, Path], None]


class Trainer(Protocol):
    """A model being trained, with the harness's linear head on its summary.

    The summary is the last layer's final hidden state of every direction, side by side: (B, D*H), forward first.
    """

    def prepare(self, batch: Split) -> Any:
        """Bring a batch to the device."""

    def step(self, prepared: Any) -> float:
        """Forward, backward and one optimiser step; returns the mean loss before it. Finished when it returns.

        The loss is cross-entropy (natural logarithm) for classification, mean squared error for regression.
        """

    def weights(self) -> Mapping[str, FloatArray]:
        """The weights now, in the standard names and layout, with `head.weight` (outputs, D*H) and `head.bias`."""


@runtime_checkable
class Trainable(Protocol):
    """The extra behaviour of a runtime that can train."""

    def open_trainer(
        self,
        model: Model,
        weights: Mapping[str, FloatArray],
        kind: TaskKind,
        recipe: Recipe,
        options: SessionOptions,
    ) -> Trainer:
        """Open a trainer that starts from these weights (head included), which have the dtype of the options."""

    def initial_weights(self, model: Model, size: LayerSize, seed: int) -> Mapping[str, FloatArray]:
        """The model's own initialisation under this seed, in the standard names and layout, float32, no head."""
