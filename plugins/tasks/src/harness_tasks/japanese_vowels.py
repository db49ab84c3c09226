"""`japanese-vowels`: which of nine speakers said a vowel, from rows of different lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness import Data, DataError, Split
from harness_tasks import ts
from harness_tasks.files import Content, gunzip

FOLDER = "uea_ucr"
CONTENTS = {
    "JapaneseVowels_TRAIN.ts": Content(487971, "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd"),
    "JapaneseVowels_TEST.ts": Content(649132, "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462"),
}
TIME = 29
ARCHIVE = "https://www.timeseriesclassification.com/description.php?Dataset=JapaneseVowels"


def load(data_dir: Path | None) -> Data:
    """270 utterances to train on and 370 to test on, the archive's own split.

    x is (N, 29, 12): twelve LPC cepstrum coefficients a step, each standardised with its mean and standard deviation
    over the real steps of the training rows. Rows are 7 to 29 steps long and padded with zeros; `lengths` says how
    far each is real. Targets 0..8 are the speakers 1..9.

    Reads `JapaneseVowels_TRAIN.ts` and `JapaneseVowels_TEST.ts`, or the same with `.gz`, from `data_dir`/uea_ucr.

    Raises:
        DataError: no data_dir, or a file in it is missing or damaged. Nothing is downloaded.

    Source: M. Kudo, J. Toyama and M. Shimbo, Multidimensional curve classification using passing-through regions,
    1999; as a `.ts` file of the UEA & UCR archive (Bagnall et al., 2018).
    """
    train, test = (ts.parse(_text(name, content, data_dir), name) for name, content in CONTENTS.items())
    steps = np.concatenate(train.series)  # (all real steps, 12) float64
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    return Data(_split(train, mean, deviation), _split(test, mean, deviation))


def _split(cases: ts.Cases, mean: ts.Channels, deviation: ts.Channels) -> Split:
    lengths = np.array([len(series) for series in cases.series], np.int64)
    x = np.zeros((len(lengths), TIME, len(mean)), np.float32)
    for row, series in zip(x, cases.series, strict=True):
        row[: len(series)] = (series - mean) / deviation
    return Split(x, cases.targets, lengths)


def _text(name: str, expected: Content, data_dir: Path | None) -> str:
    """The checked text of one of the two files."""
    if data_dir is None:
        raise DataError(
            f"japanese-vowels needs a data folder: get JapaneseVowels from {ARCHIVE}, "
            f"put {' and '.join(CONTENTS)} into DIR/{FOLDER}, and give --data-dir DIR"
        )
    folder = data_dir / FOLDER
    plain, compressed = folder / name, folder / f"{name}.gz"
    path = plain if plain.is_file() else compressed
    try:
        if path == plain:
            with path.open("rb") as file:
                content = file.read(expected.size + 1)
        else:
            content = gunzip(path.read_bytes(), expected.size)
        expected.check(content)
    except FileNotFoundError:
        raise DataError(
            f"{plain} is missing (also looked for {compressed.name}; sha256 of the uncompressed file "
            f"{expected.sha256[:12]}...): get JapaneseVowels from {ARCHIVE} and put it there"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}; replace it by the file from {ARCHIVE}") from None
    return content.decode("utf-8")
