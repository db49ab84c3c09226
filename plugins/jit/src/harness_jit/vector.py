"""Vectors that emit code: arithmetic on them in Python becomes instructions of a function that numba compiles.

LLVM decides by heuristics whether it turns a loop over scalars into one over vectors, and which values stay in
registers. Here nothing is left to them: a `Vector` is one value of LLVM's own vector type. LLVM splits what is wider
than the processor's registers, so the code is portable; only its speed depends on the processor.

A vector holds `rows` rows of `lanes` numbers, row after row: the same hidden units for several samples of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
from llvmlite import ir
from numba.core import cgutils, types

FRACTION_BITS = {"float32": 23, "float64": 52}


@dataclass(frozen=True)
class Registers:
    """What the processor's vector registers hold.

    Attributes:
        size_bytes: of one of them.
        count: how many there are.
    """

    size_bytes: int
    count: int


@cache
def registers() -> Registers:
    """This processor's, as LLVM names its features: AVX-512, AVX, or what every 64-bit processor has."""
    features = dict(llvmlite.binding.get_host_cpu_features())
    if features.get("avx512vl"):
        return Registers(64, 32)
    if features.get("avx"):
        return Registers(32, 16)
    return Registers(16, 32 if features.get("neon") else 16)


class Vector:
    """A vector of numbers in the function that a builder is writing.

    `+`, `-`, `*` and `/` are IEEE 754's, each rounded; a Python number stands for a vector of it.
    """

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder = builder
        self.value = value

    @property
    def dtype(self) -> str:
        """`float32` or `float64`."""
        return "float32" if isinstance(self.value.type.element, ir.FloatType) else "float64"

    def constant(self, number: float) -> Vector:
        """A vector like this one, of one number."""
        return Vector(self.builder, ir.Constant(self.value.type, [number] * self.value.type.count))

    def __add__(self, other: Vector | float) -> Vector:
        return Vector(self.builder, self.builder.fadd(self.value, self._vector(other).value))

    def __sub__(self, other: Vector | float) -> Vector:
        return Vector(self.builder, self.builder.fsub(self.value, self._vector(other).value))

    def __mul__(self, other: Vector | float) -> Vector:
        return Vector(self.builder, self.builder.fmul(self.value, self._vector(other).value))

    def __truediv__(self, other: Vector | float) -> Vector:
        return Vector(self.builder, self.builder.fdiv(self.value, self._vector(other).value))

    def __neg__(self) -> Vector:
        return Vector(self.builder, self.builder.fneg(self.value))

    def __abs__(self) -> Vector:
        return self._call("llvm.fabs")

    def times_plus(self, factor: Vector | float, summand: Vector | float) -> Vector:
        """self * factor + summand, rounded once where the processor can."""
        return self._call("llvm.fmuladd", factor, summand)

    def with_sign_of(self, other: Vector) -> Vector:
        """|self| with the sign of another."""
        return self._call("llvm.copysign", other)

    def at_most(self, number: float) -> Vector:
        """The lesser of each number and this one; what is not a number stays so."""
        return self._select(">", number)

    def at_least(self, number: float) -> Vector:
        """The greater of each number and this one; what is not a number stays so."""
        return self._select("<", number)

    def power_of_two(self) -> Vector:
        """2^n, where n is the whole number in the lowest bits of each number n + 1.5 * 2^(bits of the fraction).

        A float's exponent stands above its fraction, and is biased so that 1.0 has exponent 0. So n, moved up by the
        bits of the fraction and added to the bits of 1.0, is 2^n. n must be an exponent that the dtype has.
        """
        fraction = FRACTION_BITS[self.dtype]
        bits = 32 if self.dtype == "float32" else 64
        one = (2 ** (bits - fraction - 2) - 1) << fraction
        integers = ir.VectorType(ir.IntType(bits), self.value.type.count)
        moved = self.builder.shl(
            self.builder.bitcast(self.value, integers), ir.Constant(integers, [fraction] * integers.count)
        )
        biased = self.builder.add(moved, ir.Constant(integers, [one] * integers.count))
        return Vector(self.builder, self.builder.bitcast(biased, self.value.type))

    def _vector(self, other: Vector | float) -> Vector:
        return other if isinstance(other, Vector) else self.constant(other)

    def _select(self, relation: str, number: float) -> Vector:
        limit = self.constant(number).value
        beyond = self.builder.fcmp_ordered(relation, self.value, limit)
        return Vector(self.builder, self.builder.select(beyond, limit, self.value))

    def _call(self, name: str, *others: Vector | float) -> Vector:
        """Call one of LLVM's functions of vectors of one type."""
        kind = self.value.type
        values = [self.value, *(self._vector(other).value for other in others)]
        suffix = f"v{kind.count}{'f32' if self.dtype == 'float32' else 'f64'}"
        declare: Any = cgutils.get_or_insert_function  # numba is partly typed
        function = declare(self.builder.module, ir.FunctionType(kind, [kind] * len(values)), f"{name}.{suffix}")
        return Vector(self.builder, self.builder.call(function, values))


class Memory:
    """The memory of a C-contiguous array, read and written as vectors of `rows` rows, a power of two, of `lanes`.

    Indices are LLVM integers or Python's, count numbers from the start of the memory, and are not checked.
    """

    def __init__(self, builder: Any, pointer: Any, number: Any, lanes: int, rows: int) -> None:
        self.builder = builder
        self.pointer = pointer
        self.number = number  # LLVM's type of it
        self.lanes = lanes
        self.rows = rows

    def at(self, start: Any) -> Memory:
        """The memory from an index on."""
        index = ir.Constant(ir.IntType(64), start) if isinstance(start, int) else start
        pointer = self.builder.gep(self.pointer, [index], source_etype=self.number)
        return Memory(self.builder, pointer, self.number, self.lanes, self.rows)

    def same(self) -> Vector:
        """The first `lanes` numbers, in every row."""
        return self._join([self._read()] * self.rows)

    def load(self, stride: Any) -> Vector:
        """Row r holds the `lanes` numbers from r * stride on."""
        return self._join([row._read() for row in self._by_row(stride)])

    def spread(self, stride: Any) -> Vector:
        """Row r holds the number at r * stride, in all lanes."""
        return self._join([row._spread() for row in self._by_row(stride)])

    def store(self, stride: Any, vector: Vector) -> None:
        """The reverse of `load`."""
        for r, row in enumerate(self._by_row(stride)):
            part = self._pick(vector.value, range(r * self.lanes, (r + 1) * self.lanes))
            self.builder.store(part, row._whole(), align=self._alignment)

    @property
    def _alignment(self) -> int:
        return 4 if isinstance(self.number, ir.FloatType) else 8

    def _by_row(self, stride: Any) -> Iterable[Memory]:
        for row in range(self.rows):
            yield self.at(self.builder.mul(stride, ir.Constant(stride.type, row))) if row else self

    def _whole(self) -> Any:
        return self.builder.bitcast(self.pointer, ir.VectorType(self.number, self.lanes).as_pointer())

    def _read(self) -> Any:
        vector = ir.VectorType(self.number, self.lanes)
        return self.builder.load(self._whole(), align=self._alignment, typ=vector)

    def _spread(self) -> Any:
        number = self.builder.load(self.pointer, align=self._alignment, typ=self.number)
        nothing = ir.Constant(ir.VectorType(self.number, self.lanes), ir.Undefined)
        first = self.builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        return self._pick(first, [0] * self.lanes)

    def _pick(self, vector: Any, lanes: Iterable[int]) -> Any:
        return self._shuffle(vector, ir.Constant(vector.type, ir.Undefined), list(lanes))

    def _join(self, parts: Sequence[Any]) -> Vector:
        while len(parts) > 1:
            both = list(range(2 * parts[0].type.count))
            parts = [self._shuffle(low, high, both) for low, high in zip(parts[::2], parts[1::2], strict=True)]
        return Vector(self.builder, parts[0])

    def _shuffle(self, low: Any, high: Any, lanes: Sequence[int]) -> Any:
        return self.builder.shuffle_vector(
            low, high, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
        )


def repeat(
    builder: Any, count: Any, vectors: Sequence[Vector], body: Callable[[Any, Sequence[Vector]], Sequence[Vector]]
) -> list[Vector]:
    """A loop: `body(k, vectors)` gives the next vectors, for k from 0 to count - 1; what the last gave is returned."""
    place_for: Any = cgutils.alloca_once_value  # numba is partly typed
    kept = [place_for(builder, vector.value) for vector in vectors]
    kinds = [vector.value.type for vector in vectors]

    def now() -> list[Vector]:
        return [Vector(builder, builder.load(place, typ=kind)) for place, kind in zip(kept, kinds, strict=True)]

    with cgutils.for_range(builder, count) as loop:
        for place, vector in zip(kept, body(loop.index, now()), strict=True):
            builder.store(vector.value, place)
    return now()


def signature(*kinds: Any) -> Any:
    """numba's signature of emitted code that gives nothing: arrays are taken as they are, all else is an index."""
    return types.void(*(kind if isinstance(kind, types.Array) else types.intp for kind in kinds))


def memory_of(context: Any, builder: Any, sig: Any, args: Any, position: int, lanes: int, rows: int) -> Memory:
    """The memory of an argument that is an array, by its position, where code is emitted for this signature."""
    kind = sig.args[position]
    pointer = context.make_array(kind)(context, builder, args[position]).data
    return Memory(builder, pointer, context.get_value_type(kind.dtype), lanes, rows)
