"""Settings of the core's tests: reproducible property tests, and the folder's own modules importable."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # wrong_models.py, under pytest's importlib mode

settings.register_profile("harness", deadline=None, derandomize=True, database=None)
settings.load_profile("harness")
