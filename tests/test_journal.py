"""The journal: what was appended is read back, and no byte can change or go missing without being named."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import journal as journal_module
from harness.contract import HarnessError
from harness.journal import Contents, Damage, Journal, StoreError, read_journal, read_json

TEXT = st.text() | st.text("a\n\udc80\udcff")
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
OBJECT = partial(st.dictionaries, TEXT, max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT, lambda inner: st.lists(inner, max_size=3) | OBJECT(inner), max_leaves=6
)
RECORDS: list[dict[str, Any]] = [
    {"a": 1},
    {"text": "é|\n\u2028"},
    {"b": [None, True]},
    {"c": {"d": "\udc80"}},
    {"e": 5},
]
HOLD = """
import sys
from pathlib import Path
from harness.journal import Journal
journal, _ = Journal.reopen(Path(sys.argv[1]))
journal.append({"of": "another"})
print("open", flush=True)
sys.stdin.read()
"""


def line_of(number: int, body: bytes) -> bytes:
    """A record's line, written out by hand."""
    return b'{"n":%d,"crc32":"%08x","record":%s}\n' % (number, zlib.crc32(b"%d,%s" % (number, body)), body)


def write(path: Path, records: list[dict[str, Any]]) -> bytes:
    """A journal of these records, and its bytes."""
    journal = Journal.create(path)
    for record in records:
        journal.append(record)
    journal.close()
    return path.read_bytes()


def records_of(contents: Contents) -> list[dict[str, Any]]:
    return [record for _, _, record in contents.records]


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may become larger than so many bytes; what exceeds that is written as far as it goes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """These tests write thousands of records; none is there to outlive a power failure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal of `RECORDS`."""
    return write(tmp_path_factory.mktemp("whole") / "journal.jsonl", RECORDS)


def starts_of(whole: bytes) -> list[int]:
    """The byte where each line begins."""
    return [0] + [place + 1 for place, byte in enumerate(whole[:-1]) if byte == ord("\n")]


class TestAppending:
    def test_a_record_is_a_line_of_json_with_its_number_and_a_checksum_over_both(self, path: Path) -> None:
        assert write(path, [{"a": 1}, {"b": "é\n"}]) == line_of(1, b'{"a":1}') + line_of(2, b'{"b":"\\u00e9\\n"}')

    @given(records=st.lists(OBJECT(JSON), max_size=3))
    def test_whatever_is_appended_comes_back(
        self, tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
    ) -> None:
        path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
        write(path, records)
        found = read_journal(path)
        assert records_of(found) == records
        assert [number for number, _, _ in found.records] == list(range(1, len(records) + 1))
        assert (found.damage, found.half_written, found.next_number) == ([], 0, len(records) + 1)

    def test_what_is_not_finite_comes_back_as_unknown(self, path: Path) -> None:
        write(path, [{"a": [float("inf"), {"b": (float("nan"), -float("inf"), 0.5)}]}])
        assert records_of(read_journal(path)) == [{"a": [None, {"b": [None, None, 0.5]}]}]

    def test_every_record_knows_where_it_begins(self, path: Path, whole: bytes) -> None:
        path.write_bytes(whole)
        assert [byte for _, byte, _ in read_journal(path).records] == starts_of(whole)

    def test_a_record_is_on_the_disk_when_append_returns(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
        journal = Journal.create(path)
        for record in RECORDS:
            journal.append(record)
            assert synced[-1] == path.stat().st_size
        journal.close()


class TestAFullDisk:
    def test_a_record_that_does_not_fit_leaves_nothing_and_the_next_takes_its_place(self, path: Path) -> None:
        journal = Journal.create(path)
        journal.append({"first": 1})
        before = path.read_bytes()
        for size in range(len(before), len(before) + len(line_of(2, b'{"second":2}'))):
            with room_for(size), pytest.raises(StoreError, match=r"journal\.jsonl' cannot be written: File too large"):
                journal.append({"second": 2})
            assert path.read_bytes() == before
        journal.append({"third": 3})
        journal.close()
        assert path.read_bytes() == before + line_of(2, b'{"third":3}')

    def test_a_record_that_does_not_reach_the_disk_leaves_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        journal = Journal.create(path)
        journal.append({"first": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(StoreError, match="cannot be written: No space left"):
                journal.append({"second": 2})
        journal.append({"third": 3})
        journal.close()
        assert path.read_bytes() == line_of(1, b'{"first":1}') + line_of(2, b'{"third":3}')

    def test_a_folder_that_was_removed_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        journal = Journal.create(tmp_path / "run" / "journal.jsonl")
        journal.append({"first": 1})
        shutil.rmtree(tmp_path / "run")
        for _ in range(2):
            with pytest.raises(StoreError, match="run' was removed while the run was writing to it"):
                journal.append({"second": 2})
        journal.close()


class TestACutFile:
    def test_every_whole_record_stands_and_the_half_one_is_told_and_replaced(self, path: Path, whole: bytes) -> None:
        starts = starts_of(whole)
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            # a last line that lacks nothing but its newline is whole
            kept = [i for i, start in enumerate(starts) if length >= start + len(whole[start:].split(b"\n")[0])]
            found = read_journal(path)
            assert records_of(found) == RECORDS[: len(kept)], length
            assert found.damage == []
            rest = length - starts[len(kept)] if len(kept) < len(starts) else 0
            assert found.half_written == max(0, rest), length

            journal, again = Journal.reopen(path)
            assert again == found
            journal.append({"next": length})
            journal.close()
            ends = starts[len(kept)] if len(kept) < len(starts) else len(whole)
            added = line_of(len(kept) + 1, b'{"next":%d}' % length)
            assert path.read_bytes() == whole[:ends] + added, length

    def test_zeros_after_the_last_record_are_no_record(self, path: Path, whole: bytes) -> None:
        """What some file systems leave behind when the power fails."""
        path.write_bytes(whole + bytes(100))
        found = read_journal(path)
        assert (records_of(found), found.half_written, found.damage) == (RECORDS, 100, [])

    def test_an_empty_journal_has_no_records(self, path: Path) -> None:
        path.touch()
        assert read_journal(path) == Contents()
        journal, _ = Journal.reopen(path)
        journal.append({"a": 1})
        journal.close()
        assert path.read_bytes() == line_of(1, b'{"a":1}')


class TestDamage:
    @pytest.mark.parametrize("value", [0x00, 0x01, 0x0A, 0x20, 0x22, 0x30, 0x7B, 0xFF, None])
    def test_any_byte_that_changed_is_named_and_all_other_records_are_read(
        self, path: Path, whole: bytes, value: int | None
    ) -> None:
        starts = starts_of(whole)
        for place, byte in enumerate(whole):
            changed = byte ^ 1 if value is None else value
            if changed == byte:
                continue
            path.write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
            hit = max(i for i, start in enumerate(starts) if start <= place)
            lost = [hit, hit + 1] if byte == ord("\n") else [hit]  # two lines become one
            found = read_journal(path)
            assert records_of(found) == [r for i, r in enumerate(RECORDS) if i not in lost], place
            if place == len(whole) - 1:  # it has no end, like a record that was cut off
                assert found.half_written == len(whole) - starts[hit]
            else:
                assert (found.damage[0].record, found.damage[0].byte) == (hit + 1, starts[hit]), place
            assert found.next_number not in found.numbers

    @given(data=st.data())
    def test_every_line_that_is_whole_is_read_once_wherever_it_stands(
        self, tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
    ) -> None:
        """Lines may be missing, moved and doubled, and anything may stand between them."""
        lines = whole.splitlines(keepends=True)
        garbage = st.binary(max_size=20).map(lambda some: some + b"\n")
        pieces = data.draw(st.lists(st.sampled_from(lines) | garbage, max_size=12))
        path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
        path.write_bytes(b"".join(pieces))
        found = read_journal(path)
        expected = list(dict.fromkeys(lines.index(piece) + 1 for piece in pieces if piece in lines))
        assert [number for number, _, _ in found.records] == expected
        assert records_of(found) == [RECORDS[number - 1] for number in expected]
        assert bool(found.damage) == (pieces != lines[: len(pieces)])
        assert found.next_number > max(expected, default=0)

    def test_a_missing_record_is_named(self, path: Path) -> None:
        path.write_bytes(line_of(1, b"{}") + line_of(3, b"{}") + line_of(7, b"{}"))
        second, third = len(line_of(1, b"{}")), 2 * len(line_of(1, b"{}"))
        assert read_journal(path).damage == [
            Damage(2, second, "record 2 missing"),
            Damage(4, third, "record 4 to 6 missing"),
        ]

    def test_records_that_changed_places_are_named_and_read(self, path: Path) -> None:
        lines = [line_of(number, b'{"a":%d}' % number) for number in (1, 3, 2, 4)]
        path.write_bytes(b"".join(lines))
        found = read_journal(path)
        assert records_of(found) == [{"a": 1}, {"a": 3}, {"a": 2}, {"a": 4}]
        assert list(map(str, found.damage)) == [
            f"record 2, byte {len(lines[0])}: record 2 missing",
            f"record 2, byte {2 * len(lines[0])}: it stands after record 3",
        ]

    def test_a_record_that_is_there_twice_is_read_once(self, path: Path) -> None:
        line = line_of(1, b"{}")
        path.write_bytes(line + line)
        found = read_journal(path)
        assert (len(found.records), found.damage) == (1, [Damage(1, len(line), "its number was there before")])

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b"\n", "it is not a record"),
            (b"null\n", "it is not a record"),
            (b"[1, 2]\n", "it is not a record"),
            (b'{"trial": "0001-parity", "status": "ok"}\n', "it is not a record"),
            (line_of(2, b"[]"), "it is not a record"),
            (line_of(2, b"{}").replace(b'"n":2', b'"n":3'), "its checksum differs"),
            (line_of(2, b"{]}"), "JSONDecodeError"),
            (line_of(2, b'{"a":\xff}'), "UnicodeDecodeError"),
            (line_of(2, b'{"a":%s}' % (b"9" * 5000)), "Exceeds the limit"),
            (line_of(2, b'{"a":%s%s}' % (b"[" * 100_000, b"]" * 100_000)), "it is nested too deeply"),
        ],
    )
    def test_a_line_that_is_no_record_is_named(self, path: Path, line: bytes, problem: str) -> None:
        first, last = line_of(1, b'{"a":1}'), line_of(3, b'{"a":3}')
        path.write_bytes(first + line + last)
        found = read_journal(path)
        assert records_of(found) == [{"a": 1}, {"a": 3}]
        (damage,) = found.damage
        assert (damage.record, damage.byte) == (2, len(first))
        assert problem in damage.problem
        assert "\n" not in damage.problem

    @pytest.mark.parametrize("tail", [b"", b"\n", line_of(3, b"{}")])
    def test_a_line_that_is_too_long_is_named_and_stays_where_it_is(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, tail: bytes
    ) -> None:
        monkeypatch.setattr(journal_module, "MAX_RECORD_BYTES", 100)
        first, long = line_of(1, b"{}"), line_of(2, b'{"a":"%s"}' % (b"x" * 1000)).removesuffix(b"\n")
        before = first + long + (b"\n" + tail if len(tail) > 1 else tail)
        path.write_bytes(before)
        found = read_journal(path)
        assert [damage.record for damage in found.damage] == [2]
        assert [number for number, _, _ in found.records] == ([1, 3] if len(tail) > 1 else [1])
        journal, _ = Journal.reopen(path)
        journal.append({"a": 1})
        journal.close()
        ended = before if before.endswith(b"\n") else before + b"\n"
        assert path.read_bytes() == ended + line_of(found.next_number, b'{"a":1}')

    def test_a_record_of_just_the_allowed_length_is_read(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for extra in (0, 1):  # with and without its newline
            line = line_of(1, b'{"a":"xxxxxxxxxx"}')
            monkeypatch.setattr(journal_module, "MAX_RECORD_BYTES", len(line) - extra)
            path.write_bytes(line + line_of(2, b"{}"))
            found = read_journal(path)
            assert (len(found.records), found.damage) == (2, [])

    def test_after_damage_the_numbers_go_on(self, path: Path) -> None:
        path.write_bytes(line_of(1, b"{}") + b"garbage\n" + line_of(3, b"{}") + b"more\n")
        journal, _ = Journal.reopen(path)
        journal.append({"a": 1})
        journal.close()
        found = read_journal(path)
        assert [number for number, _, _ in found.records] == [1, 3, 5]
        assert [damage.record for damage in found.damage] == [2, 4]


class TestReopening:
    def test_what_is_there_stays_and_what_comes_is_added(self, path: Path) -> None:
        write(path, RECORDS[:2])
        for record in RECORDS[2:]:
            journal, _ = Journal.reopen(path)
            journal.append(record)
            journal.close()
        found = read_journal(path)
        assert records_of(found) == RECORDS
        assert found.damage == []

    def test_a_journal_is_made_only_where_there_is_none(self, path: Path) -> None:
        before = write(path, RECORDS)
        with pytest.raises(HarnessError, match="is being written by another run; choose another --out"):
            Journal.create(path)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("open_first", [Journal.create, lambda path: Journal.reopen(path)[0]])
    def test_no_two_can_write_it_at_once(self, path: Path, open_first: Any) -> None:
        if open_first != Journal.create:
            write(path, RECORDS)
        first = open_first(path)
        with pytest.raises(HarnessError, match="is being written by another run; wait for it to end"):
            Journal.reopen(path)
        first.append({"still": "open"})
        first.close()
        again, contents = Journal.reopen(path)
        again.close()
        assert records_of(contents)[-1] == {"still": "open"}

    def test_another_process_holds_it_until_it_dies(self, path: Path) -> None:
        write(path, RECORDS)
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            try:
                assert holder.stdout
                assert holder.stdout.readline() == b"open\n"
                with pytest.raises(HarnessError, match="is being written by another run; wait for it to end"):
                    Journal.reopen(path)
            finally:
                holder.kill()
        journal, contents = Journal.reopen(path)
        journal.close()
        assert records_of(contents) == [*RECORDS, {"of": "another"}]

    def test_a_file_that_is_not_there_or_no_file_is_named(self, path: Path) -> None:
        with pytest.raises(HarnessError, match="cannot be written: No such file"):
            Journal.reopen(path)
        with pytest.raises(HarnessError, match="cannot be read: No such file"):
            read_journal(path)
        path.mkdir()
        with pytest.raises(HarnessError, match="cannot be written: Is a directory"):
            Journal.reopen(path)
        with pytest.raises(HarnessError, match="cannot be read: Is a directory"):
            read_journal(path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write what is read-only")
    def test_a_read_only_journal_can_be_read_but_not_gone_on_with(self, path: Path) -> None:
        write(path, RECORDS)
        path.chmod(0o400)
        assert records_of(read_journal(path)) == RECORDS
        with pytest.raises(HarnessError, match="cannot be written: Permission denied"):
            Journal.reopen(path)

    def test_half_a_record_stays_where_it_cannot_be_cut_away(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its last record lacks the newline, and there is no room for it."""
        before = write(path, RECORDS).removesuffix(b"\n")
        path.write_bytes(before)
        with room_for(len(before)), pytest.raises(HarnessError, match="cannot be written: File too large"):
            Journal.reopen(path)
        assert path.read_bytes() == before
        journal, _ = Journal.reopen(path)  # and it is not locked
        journal.close()


@given(text=st.binary(max_size=30))
def test_text_from_outside_is_json_or_a_value_error(text: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_json(text)


def test_text_that_is_nested_too_deeply_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(b"[" * 1_000_000)
