"""The tasks give the data their docstrings promise, and say what is wrong when they cannot."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pooch  # type: ignore[import-untyped]
import pytest
from harness_tasks import adding, harness_tasks, japanese_vowels, mnist, temporal_order, ts
from harness_tasks.files import Content, gunzip
from hypothesis import given
from hypothesis import strategies as st

from harness import Data, DataError, LayerSize, SessionOptions, Task, discover
from harness.engine import accuracy

pytestmark = pytest.mark.filterwarnings("error")

TASKS = {task.name: task for task in harness_tasks()}
NEEDS_FILES = {"mnist-rows", "japanese-vowels"}


def digest(data: Data) -> str:
    """One short checksum over every array of a data set."""
    total = hashlib.sha256()
    for split in (data.train, data.test):
        for array in (split.x, split.targets, split.lengths):
            total.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def real_data(name: str) -> Path:
    folder = os.environ.get("HARNESS_DATA_DIR")
    if folder is None:
        pytest.skip(f"{name} needs its files: set HARNESS_DATA_DIR to the folder of data sets")
    return Path(folder)


@pytest.fixture(scope="module", params=list(TASKS))
def loaded(request: pytest.FixtureRequest) -> tuple[Task, Data]:
    task = TASKS[request.param]
    return task, task.load(real_data(task.name) if task.name in NEEDS_FILES else None)


ROWS = {
    "digits-rows": (1437, 360),
    "mnist-rows": (60_000, 10_000),
    "adding": (80_000, 2_000),
    "temporal-order": (51_200, 2_000),
    "temporal-order-forget-bias": (51_200, 2_000),
    "japanese-vowels": (270, 370),
}


def test_every_split_has_the_shape_and_type_its_task_says(loaded: tuple[Task, Data]) -> None:
    task, data = loaded
    for split, rows in zip((data.train, data.test), ROWS[task.name], strict=True):
        assert split.x.shape == (rows, task.time, task.input_size)
        assert split.x.dtype == np.float32
        assert split.x.flags.c_contiguous
        assert split.targets.flags.c_contiguous
        assert np.isfinite(split.x).all()
        if task.kind == "classification":
            assert split.targets.shape == (rows,)
            assert split.targets.dtype == np.int64
            assert set(np.unique(split.targets)) == set(range(task.outputs))
        else:
            assert split.targets.shape == (rows, task.outputs)
            assert split.targets.dtype == np.float32


def test_loading_again_gives_the_same_data(loaded: tuple[Task, Data]) -> None:
    task, data = loaded
    again = task.load(real_data(task.name) if task.name in NEEDS_FILES else None)
    assert digest(again) == digest(data)


def test_the_test_rows_are_not_among_the_training_rows(loaded: tuple[Task, Data]) -> None:
    _, data = loaded
    train = {row.tobytes() for row in data.train.x}
    assert not any(row.tobytes() in train for row in data.test.x)


def test_temporal_order_with_and_without_forget_bias_share_their_data() -> None:
    plain, biased = TASKS["temporal-order"], TASKS["temporal-order-forget-bias"]
    assert plain.load is biased.load
    assert (plain.recipe.forget_bias, biased.recipe.forget_bias) == (None, 1.0)
    assert dataclasses.replace(biased.recipe, forget_bias=None) == plain.recipe


@pytest.mark.slow
def test_temporal_order_is_solved_with_the_forget_bias_and_not_without() -> None:
    pytest.importorskip("harness_torch")
    catalog = discover()
    model, runtime = catalog.model("torch-lstm"), catalog.runtime("eager")

    def score(name: str) -> float:
        task = TASKS[name]
        options = SessionOptions(LayerSize(task.input_size, task.recipe.hidden_size))
        _, curve, _ = accuracy.train(model, runtime, task, task.load(None), 1, options)
        return curve[-1].score

    assert score("temporal-order-forget-bias") >= 0.99
    assert score("temporal-order") < 0.6


# Generated data. The checksums hold the rows fixed over versions of NumPy and scikit-learn: other rows, another task.


@pytest.mark.parametrize(
    ("name", "expected"),
    [("digits-rows", "dd82963602a00ec7"), ("adding", "f90c94b2f64fd34b"), ("temporal-order", "ed9dc713ef6d2913")],
)
def test_generated_and_embedded_data_never_change(name: str, expected: str) -> None:
    assert digest(TASKS[name].load(None)) == expected


def test_digits_are_stratified_and_scaled() -> None:
    data = TASKS["digits-rows"].load(None)
    whole = np.bincount(data.train.targets) + np.bincount(data.test.targets)
    assert whole.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.abs(np.bincount(data.test.targets) - whole * 360 / 1797).max() < 1
    assert (data.train.x.min(), data.train.x.max()) == (0, 1)


@given(st.integers(1, 50), st.integers(0, 2**32))
def test_an_adding_target_is_the_sum_of_the_two_marked_values(rows: int, seed: int) -> None:
    split = adding.sequences(rows, seed)
    values, markers = split.x[:, :, 0], split.x[:, :, 1]
    assert set(np.unique(markers)) == {0, 1}
    assert (markers[:, :25].sum(axis=1) == 1).all()
    assert (markers[:, 25:].sum(axis=1) == 1).all()
    assert (values >= 0).all()
    assert (values <= 1).all()
    np.testing.assert_allclose(split.targets[:, 0], (values * markers).sum(axis=1), rtol=1e-6)


def test_adding_markers_reach_every_step() -> None:
    assert adding.sequences(2_000, seed=3).x[:, :, 1].any(axis=0).all()


@given(st.integers(1, 50), st.integers(0, 2**32))
def test_a_temporal_order_class_follows_from_the_letters(rows: int, seed: int) -> None:
    split = temporal_order.sequences(rows, seed)
    assert (split.x.sum(axis=2) == 1).all()
    for row, target in zip(split.x, split.targets, strict=True):
        text = "".join(temporal_order.SYMBOLS[k] for k in row.argmax(axis=1))
        assert text[0] == "E"
        assert text[-1] == "B"
        assert set(text[1:-1]) <= set("abcdXY")
        (first, second) = (step for step, letter in enumerate(text) if letter in "XY")
        assert temporal_order.EARLY[0] <= first <= temporal_order.EARLY[1]
        assert temporal_order.LATE[0] <= second <= temporal_order.LATE[1]
        assert target == ["XX", "XY", "YX", "YY"].index(text[first] + text[second])


def test_temporal_order_classes_are_balanced_and_every_position_occurs() -> None:
    split = temporal_order.sequences(4_000, seed=3)
    assert np.abs(np.bincount(split.targets) - 1000).max() < 120
    marked = np.flatnonzero(split.x[:, :, 6:].any(axis=(0, 2)))
    early, late = temporal_order.EARLY, temporal_order.LATE
    assert marked.tolist() == [*range(early[0], early[1] + 1), *range(late[0], late[1] + 1)]


# The real files.


def test_mnist_has_the_published_classes_and_moments() -> None:
    data = TASKS["mnist-rows"].load(real_data("mnist-rows"))
    train, test = data.train, data.test
    assert np.bincount(train.targets).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test.targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.x.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    assert test.x.mean(dtype=np.float64) == pytest.approx(0.1325, abs=5e-5)
    assert (train.x.min(), train.x.max()) == (0, 1)


def test_japanese_vowels_have_the_published_classes_and_lengths() -> None:
    data = TASKS["japanese-vowels"].load(real_data("japanese-vowels"))
    train, test = data.train, data.test
    assert np.bincount(train.targets).tolist() == [30] * 9
    assert np.bincount(test.targets).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert train.lengths is not None
    assert test.lengths is not None
    assert train.lengths.dtype == np.int64
    assert (train.lengths.min(), train.lengths.max()) == (7, 26)
    assert (test.lengths.min(), test.lengths.max()) == (7, 29)


def test_japanese_vowels_are_standardised_and_padded_with_zeros() -> None:
    train = TASKS["japanese-vowels"].load(real_data("japanese-vowels")).train
    assert train.lengths is not None
    real = np.arange(29) < train.lengths[:, None]
    steps = train.x[real].astype(np.float64)
    np.testing.assert_allclose(steps.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(steps.std(axis=0), 1, atol=1e-6)
    assert not train.x[~real].any()


def test_japanese_vowels_may_lie_uncompressed(tmp_path: Path) -> None:
    source = real_data("japanese-vowels")
    folder = tmp_path / "uea_ucr"
    folder.mkdir()
    for name in japanese_vowels.CONTENTS:
        (folder / name).write_bytes(gzip.decompress((source / "uea_ucr" / f"{name}.gz").read_bytes()))
    task = TASKS["japanese-vowels"]
    assert digest(task.load(tmp_path)) == digest(task.load(source))


# Missing and damaged files.


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_japanese_vowels_without_a_folder_say_where_to_get_them() -> None:
    with pytest.raises(DataError) as error:
        TASKS["japanese-vowels"].load(None)
    text = one_line(error)
    assert "timeseriesclassification.com" in text
    assert "--data-dir" in text


def test_missing_japanese_vowels_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        TASKS["japanese-vowels"].load(tmp_path)
    text = one_line(error)
    assert str(tmp_path / "uea_ucr" / "JapaneseVowels_TRAIN.ts") in text
    assert "68a430eabd91" in text


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("JapaneseVowels_TRAIN.ts", b"@data\n", "its sha256 is"),
        ("JapaneseVowels_TRAIN.ts.gz", b"not gzip", "not a whole gzip file"),
        ("JapaneseVowels_TRAIN.ts.gz", gzip.compress(b"x" * 1000)[:-9], "not a whole gzip file"),
        ("JapaneseVowels_TRAIN.ts.gz", gzip.compress(bytes(10**6)), "more than the expected 487971 bytes"),
    ],
)
def test_damaged_japanese_vowels_are_named_with_the_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    folder = tmp_path / "uea_ucr"
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        TASKS["japanese-vowels"].load(tmp_path)
    text = one_line(error)
    assert str(folder / name) in text
    assert reason in text


def test_a_missing_mnist_file_is_not_downloaded_when_a_folder_was_given(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        TASKS["mnist-rows"].load(tmp_path)
    text = one_line(error)
    assert str(tmp_path / "mnist" / "train-images-idx3-ubyte.gz") in text
    assert "440fcabf73cc" in text
    assert "leave out --data-dir" in text


def test_a_damaged_mnist_file_is_named_with_both_checksums(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"nonsense")
    with pytest.raises(DataError) as error:
        TASKS["mnist-rows"].load(tmp_path)
    text = one_line(error)
    assert hashlib.sha256(b"nonsense").hexdigest()[:12] in text
    assert "440fcabf73cc" in text


def test_decompression_stops_at_the_expected_size() -> None:
    swollen = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        assert len(gunzip(swollen, 1000)) == 1001
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


# The IDX format.


def idx(shape: tuple[int, ...], pixels: bytes, magic: int | None = None) -> bytes:
    return struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape) if magic is None else magic, *shape) + pixels


def test_an_idx_file_is_read_in_c_order() -> None:
    np.testing.assert_array_equal(mnist.parse_idx(idx((2, 3), bytes(range(6))), (2, 3)), np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\0\0", "its header needs 12 bytes, it has 2"),
        (idx((2, 3), bytes(6), magic=2051), "its magic number is 2051, expected 2050"),
        (idx((3, 2), bytes(6)), r"shape \(3, 2\), expected \(2, 3\)"),
        (idx((2, 3), bytes(5)), "it has 17 bytes, its header promises 18"),
        (idx((2, 3), bytes(7)), "it has 19 bytes, its header promises 18"),
    ],
)
def test_a_malformed_idx_file_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        mnist.parse_idx(content, (2, 3))


# Downloads, from a server on this machine.

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
SERVED = gzip.compress(idx(PIXELS.shape, PIXELS.tobytes()), mtime=0)
SMALL = mnist.IdxFile("small.gz", Content(len(SERVED), hashlib.sha256(SERVED).hexdigest()), PIXELS.shape)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pooch.get_logger(), "level", logging.ERROR)
    return tmp_path / "rnn-harness" / "mnist"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served over HTTP, at the address the plugin will ask."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv(mnist.URL_VARIABLE, f"http://127.0.0.1:{server.server_port}")
        yield folder
        server.shutdown()
        thread.join()


def test_a_download_is_checked_read_and_kept(served: Path, cache: Path) -> None:
    (served / SMALL.name).write_bytes(SERVED)
    np.testing.assert_array_equal(mnist.read(SMALL, None), PIXELS)
    assert (cache / SMALL.name).read_bytes() == SERVED
    (served / SMALL.name).unlink()
    np.testing.assert_array_equal(mnist.read(SMALL, None), PIXELS)  # from the cache


def test_a_download_with_a_wrong_checksum_is_refused_and_not_kept(served: Path, cache: Path) -> None:
    (served / SMALL.name).write_bytes(bytes(len(SERVED)))
    with pytest.raises(DataError) as error:
        mnist.read(SMALL, None)
    text = one_line(error)
    assert "hash" in text
    assert str(cache / SMALL.name) in text
    assert not (cache / SMALL.name).exists()


def test_a_download_that_does_not_end_is_cut_off(served: Path, cache: Path) -> None:
    (served / SMALL.name).write_bytes(bytes(len(SERVED) + 1))
    with pytest.raises(DataError, match="more than the expected"):
        mnist.read(SMALL, None)
    assert not (cache / SMALL.name).exists()


def test_a_file_the_server_lacks_is_named_with_its_address(served: Path, cache: Path) -> None:
    with pytest.raises(DataError) as error:
        mnist.read(SMALL, None)
    text = one_line(error)
    assert "404" in text
    assert f"{os.environ[mnist.URL_VARIABLE]}/{SMALL.name}" in text
    assert str(cache / SMALL.name) in text
    assert "--data-dir" in text


def test_a_server_that_does_not_answer_is_an_error_of_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening, so a connection is refused
        monkeypatch.setenv(mnist.URL_VARIABLE, f"http://127.0.0.1:{taken.getsockname()[1]}/mnist/")
        with pytest.raises(DataError) as error:
            mnist.read(SMALL, None)
    assert "could not be downloaded" in one_line(error)


def test_mnist_is_downloaded_whole_when_no_folder_is_given(
    served: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (served / SMALL.name).write_bytes(SERVED)
    labels = gzip.compress(idx((2,), b"\3\7"), mtime=0)
    (served / "labels.gz").write_bytes(labels)
    small_labels = mnist.IdxFile("labels.gz", Content(len(labels), hashlib.sha256(labels).hexdigest()), (2,))
    for name, file in (("IMAGES", SMALL), ("LABELS", small_labels)):
        monkeypatch.setattr(mnist, f"TRAIN_{name}", file)
        monkeypatch.setattr(mnist, f"TEST_{name}", file)
    data = TASKS["mnist-rows"].load(None)
    np.testing.assert_allclose(data.train.x, PIXELS / 255, rtol=1e-6)
    assert data.test.targets.tolist() == [3, 7]


# The .ts format.

HEADER = "# a comment\n@problemName Test\n@timeStamps false\n@classLabel true no yes\n@data\n"


def written(series: list[Any], labels: list[str]) -> str:
    lines = [
        ":".join([*(",".join(map(repr, channel.tolist())) for channel in case.T), label])
        for case, label in zip(series, labels, strict=True)
    ]
    return HEADER + "\n".join(lines) + "\n"


@given(st.data())
def test_what_was_written_as_ts_is_read_back(data: st.DataObject) -> None:
    channels = data.draw(st.integers(1, 3))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    series = [
        np.array(data.draw(st.lists(finite, min_size=n * channels, max_size=n * channels))).reshape(n, channels)
        for n in lengths
    ]
    labels = [data.draw(st.sampled_from(["no", "yes"])) for _ in lengths]
    cases = ts.parse(written(series, labels), "test.ts")
    assert cases.classes == ("no", "yes")
    assert [cases.classes[k] for k in cases.targets] == labels
    assert cases.header["problemname"] == "Test"
    for got, expected in zip(cases.series, series, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "test.ts: no @data line; is this a .ts file?"),
        (HEADER, "test.ts: no case after @data"),
        ("problem Test", "test.ts, line 1: expected a header line that starts with '@', or @data"),
        ("@data\n1:no", "test.ts, line 1: the header has no '@classLabel true NAME NAME ...'"),
        ("@timeStamps true\n@data", "test.ts, line 2: @timeStamps must be false; time stamps are not supported"),
        (HEADER + "1,2", "test.ts, line 6: expected channels and a class label, separated by ':'"),
        (HEADER + "1,2:3:no", "test.ts, line 6: the channels have different lengths: 1, 2"),
        (HEADER + "1,?:no", "test.ts, line 6: '?' is not a number"),
        (HEADER + "1,:no", "test.ts, line 6: '' is not a number"),
        (HEADER + "1,nan:no", "test.ts, line 6: 'nan' is not a finite number"),
        (HEADER + "1,2:no\n\n1:2:no", "test.ts, line 8: the case has 2 channels, the first has 1"),
        (HEADER + "1,2:maybe", "test.ts, line 6: class 'maybe' is not among @classLabel (no yes)"),
    ],
)
def test_a_line_that_does_not_fit_is_named_by_its_number(text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        ts.parse(text, "test.ts")
    assert str(error.value) == message


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, harness_tasks; harness_tasks.harness_tasks();"
        "sys.exit(bool({'numpy', 'sklearn', 'pooch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
