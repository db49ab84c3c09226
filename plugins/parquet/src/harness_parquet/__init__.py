"""The report format `parquet`: every table of a run as a Parquet file, with the types of its columns.

Importing this module imports no pyarrow; writing does.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import harness

if importlib.util.find_spec("pyarrow") is None:  # said here, because only what fails at once is told by `harness list`
    raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")

harness_contract = 1


def write(run: harness.Run, folder: Path) -> None:
    """Write `<table>.parquet` of every table; unknown is null, and the metadata has the version of the columns."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    for name, table in run.tables.items():
        written = pa.Table.from_pandas(table, preserve_index=False)
        facts = {"rnn_harness_schema_version": str(run.schema_version), "rnn_harness_table": name}
        pq.write_table(
            written.replace_schema_metadata({**written.schema.metadata, **facts}), folder / f"{name}.parquet"
        )


@harness.hookimpl
def harness_report_formats() -> list[harness.ReportFormat]:
    """One format, `parquet`."""
    return [harness.ReportFormat("parquet", "a file a table, with the types of its columns", write)]
