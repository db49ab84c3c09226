"""Files whose content is known in advance: read with a bound, checked before use."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Content:
    """What the content of a file must be: its size in bytes and its SHA-256."""

    size: int
    sha256: str

    def check(self, content: bytes) -> None:
        """Raises ValueError, saying what was found and what was expected, unless this is the content."""
        if len(content) > self.size:  # it may have been cut at the bound, so its SHA-256 would say nothing
            raise ValueError(f"it has more than the expected {self.size} bytes")
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"its sha256 is {found[:12]}... ({len(content)} bytes), "
                f"expected {self.sha256[:12]}... ({self.size} bytes)"
            )


def gunzip(compressed: bytes, most: int) -> bytes:
    """Decompress at most `most` + 1 bytes, so that a file made to swell cannot fill the memory.

    Raises:
        ValueError: this is not a whole gzip file.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(compressed)) as stream:
            return stream.read(most + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"it is not a whole gzip file ({error})") from None
