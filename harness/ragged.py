"""Rows of different lengths for sessions that know only rectangles."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.contract import Inputs, Outputs, Session


class ByLength:
    """A session that runs the rows of each distinct length together, so that no padding is ever computed.

    Wraps a session that ignores `Inputs.lengths`. Inputs without lengths pass straight through, at no cost in `run`
    but one type check. The results are put back in the rows' own order, with zeros at padding.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        """What else the session it wraps has: what it says of itself (`SESSION_CLAIMS`), say."""
        if name.startswith("_"):
            raise AttributeError(name)  # no name of its own is looked for there
        return getattr(self._session, name)

    def prepare(self, inputs: Inputs) -> Any:
        if inputs.lengths is None:
            return self._session.prepare(inputs)
        parts = []
        for length in np.unique(inputs.lengths):
            rows = np.flatnonzero(inputs.lengths == length)
            state = None if inputs.state is None else tuple(part[:, rows] for part in inputs.state)
            parts.append((rows, self._session.prepare(Inputs(inputs.x[rows, :length], state))))
        return _Parts(inputs.x.shape[1], parts)

    def run(self, prepared: Any) -> Any:
        if type(prepared) is not _Parts:
            return self._session.run(prepared)
        return _Parts(prepared.time, [(rows, self._session.run(part)) for rows, part in prepared.parts])

    def fetch(self, raw: Any) -> Outputs:
        if type(raw) is not _Parts:
            return self._session.fetch(raw)
        fetched = [(rows, self._session.fetch(part)) for rows, part in raw.parts]
        batch = sum(len(rows) for rows, _ in fetched)
        first = fetched[0][1]
        y = np.zeros((batch, raw.time, first.y.shape[2]), first.y.dtype)
        state = tuple(np.zeros((part.shape[0], batch, part.shape[2]), part.dtype) for part in first.state)
        for rows, outputs in fetched:
            y[rows, : outputs.y.shape[1]] = outputs.y
            for whole, part in zip(state, outputs.state, strict=True):
                whole[:, rows] = part
        return Outputs(y, state)

    def close(self) -> None:
        self._session.close()


class _Parts:
    """The rows of one batch, one part per distinct length."""

    def __init__(self, time: int, parts: list[tuple[Any, Any]]) -> None:
        self.time = time
        self.parts = parts
