"""The journal: an append-only file of numbered, checksummed records, each on the disk before it counts.

A record is one line: `{"n":17,"crc32":"0a1b2c3d","record":{…}}`. The checksum is CRC-32 (ISO 3309) over the number, a
comma and the record's bytes as they stand in the line. So every line is JSON, and any byte that changed is noticed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from harness.contract import HarnessError, one_line

try:
    import fcntl
except ImportError:  # not POSIX: two processes that write one file are then not kept apart
    fcntl = None  # type: ignore[assignment]

MAX_RECORD_BYTES = 256 * 1024 * 1024
LINE = re.compile(rb'\{"n":(\d{1,12}),"crc32":"([0-9a-f]{8})","record":(\{.*\})\}', re.DOTALL)


class StoreError(HarnessError):
    """What was measured cannot be written: disk full, folder gone. What was written before is kept."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a journal that cannot be read.

    Attributes:
        record: its number, counted from 1.
        byte: where it begins in the file, counted from 0.
        problem: what is wrong with it.
    """

    record: int
    byte: int
    problem: str

    def __str__(self) -> str:
        return f"record {self.record}, byte {self.byte}: {self.problem}"


@dataclass(slots=True)
class Contents:
    """What a journal holds.

    Attributes:
        records: every record that is whole, with its number and the byte where its line begins.
        damage: what is not.
        half_written: how many bytes of a last record there are that was cut off while it was written.
        size: how many bytes are whole lines.
        next_number: the number of the record to come.
        numbers: those of the records that are whole.
    """

    records: list[tuple[int, int, dict[str, Any]]] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    half_written: int = 0
    size: int = 0
    next_number: int = 1
    numbers: set[int] = field(default_factory=set)


def read_journal(path: Path) -> Contents:
    """Read a journal. Damage is told of and stepped over; a last record that was cut off is dropped.

    Raises:
        HarnessError: the file cannot be read.
    """
    found = Contents()
    try:
        with path.open("rb") as file:
            for byte, end, line in _lines(file):
                _take(found, byte, end, line)
    except OSError as error:
        raise HarnessError(f"'{path}' cannot be read: {error.strerror}") from error
    return found


class Journal:
    """A journal open for appending. While it is open no other process can open it; one that died holds nothing."""

    def __init__(self, file: IO[bytes], path: Path, size: int = 0, next_number: int = 1) -> None:
        """Use `create` or `reopen`."""
        self.path = path
        self._file = file
        self._size = size
        self._next_number = next_number

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new journal.

        Raises:
            HarnessError: another run has just made it.
            OSError: it cannot be made.
        """
        try:
            file = path.open("xb", buffering=0)
        except FileExistsError as error:
            raise HarnessError(f"'{path.parent}' is being written by another run; choose another --out") from error
        _lock(file, path)
        sync_folder(path.parent)
        return cls(file, path)

    @classmethod
    def reopen(cls, path: Path) -> tuple[Self, Contents]:
        """A journal to go on with, and what it holds; the half of a record at its end is cut away.

        Raises:
            HarnessError: another process is writing it, or it cannot be read or written.
        """
        try:
            file = path.open("r+b", buffering=0)
        except OSError as error:
            raise HarnessError(f"'{path}' cannot be written: {error.strerror}") from error
        try:
            _lock(file, path)
            contents = read_journal(path)
            file.truncate(contents.size)
            file.seek(contents.size)
            journal = cls(file, path, contents.size, contents.next_number)
            if contents.size and not _ends_with_newline(path):
                journal._write(b"\n")
        except OSError as error:
            file.close()
            raise HarnessError(f"'{path}' cannot be written: {error.strerror}") from error
        except BaseException:
            file.close()
            raise
        return journal, contents

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it is on the disk when this returns. What is not finite is stored as null.

        Raises:
            StoreError: it cannot be written; the journal is as it was before.
        """
        body = json.dumps(_json_safe(record), allow_nan=False, separators=(",", ":")).encode()
        number = self._next_number
        head = b'{"n":%d,"crc32":"%08x","record":' % (number, _checksum(number, body))
        try:
            self._write(head + body + b"}\n")
            if os.fstat(self._file.fileno()).st_nlink == 0:
                raise StoreError(f"'{self.path.parent}' was removed while the run was writing to it")
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
                self._file.seek(self._size)
            raise StoreError(f"'{self.path}' cannot be written: {error.strerror}") from error
        self._next_number += 1

    def close(self) -> None:
        """Close the file and give up the lock."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())
        self._size += len(data)


def sync_folder(folder: Path) -> None:
    """Make a folder's names as lasting as its files' contents, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole and safe from a loss of power, or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def read_json(text: bytes) -> Any:
    """Parse JSON from outside: whatever is wrong with it, too deep included, is a ValueError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _lines(file: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Every line with the bytes where it begins and ends; of an endless one only the beginning, without its newline."""
    end = 0
    while line := file.readline(MAX_RECORD_BYTES):
        byte, end, rest = end, end + len(line), line
        while len(rest) == MAX_RECORD_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_RECORD_BYTES)
            end += len(rest)
        yield byte, end, line


def _take(found: Contents, byte: int, end: int, line: bytes) -> None:
    is_whole = line.endswith(b"\n")
    number, record, problem = _parse(line.removesuffix(b"\n"))
    if problem and not is_whole and len(line) < MAX_RECORD_BYTES:
        found.half_written = len(line)
        return
    found.size = end
    if problem:  # its number is a guess: it may be a part of a record, or none at all
        found.damage.append(Damage(found.next_number, byte, problem))
        found.next_number += 1
        return
    if number in found.numbers:
        found.damage.append(Damage(number, byte, "its number was there before"))
        return
    if number > found.next_number:
        last = f" to {number - 1}" if number - 1 > found.next_number else ""
        found.damage.append(Damage(found.next_number, byte, f"record {found.next_number}{last} missing"))
    if number < found.next_number and number < (last_number := max(found.numbers, default=0)):
        found.damage.append(Damage(number, byte, f"it stands after record {last_number}"))
    else:
        found.next_number = number + 1
    found.records.append((number, byte, record))
    found.numbers.add(number)


def _parse(line: bytes) -> tuple[int, dict[str, Any], str]:
    """The number, the record, and what is wrong with the line, if anything."""
    match = LINE.fullmatch(line)
    if not match:
        return 0, {}, "it is not a record"
    number, body = int(match[1]), match[3]
    if int(match[2], 16) != _checksum(number, body):
        return 0, {}, "its checksum differs"
    try:
        record: dict[str, Any] = read_json(body)
    except ValueError as error:
        return 0, {}, one_line(error)
    return number, record, ""


def _checksum(number: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(b"%d," % number))


def take_lock(file: IO[bytes], wait: bool = False) -> bool:
    """Lock an open file for this process until it is closed; False if another process has it and nobody waits.

    It ends with the process, however that ends. A file system, or an operating system, without locks keeps nobody out.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True


def _lock(file: IO[bytes], path: Path) -> None:
    if not take_lock(file):
        file.close()
        raise HarnessError(f"'{path.parent}' is being written by another run; wait for it to end")


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _json_safe(value: Any) -> Any:
    """JSON has no infinity: what is not finite is stored as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    return value
