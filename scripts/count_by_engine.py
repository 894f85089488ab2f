#!/usr/bin/env python3
"""Count the words of a text by another engine, in the schema that `counts import` takes over.

    python scripts/count_by_engine.py duckdb|polars|spark TEXT.jsonl OUT.parquet

One query each: documents are cut by our own cutter, grouped by segment, and counted. The result is
then `tokensurgeon counts import OUT.parquet -o counts`. Needs the engine's package; Spark also
needs Java.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

from tokensurgeon.trainers.corpus_counts import import_cutter
from tokensurgeon.trainers.plan import Shape

CUTTER = import_cutter("words", "cl100k", "left-3", Shape())


def cut(text: str) -> list[str]:
    """Return the segments of a text."""
    return list(CUTTER.cut(text))


def by_duckdb(text: Path, output: Path) -> None:
    """Count by DuckDB."""
    import duckdb

    with duckdb.connect() as database:
        database.create_function("cut", cut, ["VARCHAR"], "VARCHAR[]")
        database.execute(
            f"""
            COPY (
              SELECT segment, count(*)::UBIGINT AS count, count(DISTINCT id)::UBIGINT AS documents
              FROM (SELECT row_number() OVER () AS id, unnest(cut(text)) AS segment
                    FROM read_json('{text}', columns = {{text: 'VARCHAR'}}))
              GROUP BY segment
            ) TO '{output}' (FORMAT parquet)
            """
        )


def by_polars(text: Path, output: Path) -> None:
    """Count by polars."""
    import polars as pl

    (
        pl.scan_ndjson(text)
        .with_row_index("id")
        .select("id", segment=pl.col("text").map_elements(cut, return_dtype=pl.List(pl.String)))
        .explode("segment")
        .group_by("segment")
        .agg(count=pl.len().cast(pl.UInt64), documents=pl.col("id").n_unique().cast(pl.UInt64))
        .collect()
        .write_parquet(output)
    )


def by_spark(text: Path, output: Path) -> None:
    """Count by Spark; it writes a folder, whose only part is taken."""
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as f

    spark = SparkSession.builder.master("local[2]").getOrCreate()
    segments = f.udf(cut, "array<string>")
    folder = output.with_suffix(".spark")
    (
        spark.read.json(str(text))
        .select(f.monotonically_increasing_id().alias("id"), segments("text").alias("segments"))
        .select("id", f.explode("segments").alias("segment"))
        .groupBy("segment")
        .agg(f.count("*").alias("count"), f.count_distinct("id").alias("documents"))
        .coalesce(1)
        .write.mode("overwrite")
        .parquet(str(folder))
    )
    spark.stop()
    (part,) = folder.glob("*.parquet")
    part.replace(output)
    shutil.rmtree(folder)


ENGINES: dict[str, Callable[[Path, Path], None]] = {
    "duckdb": by_duckdb,
    "polars": by_polars,
    "spark": by_spark,
}


def main() -> None:
    """Run the engine that is named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("text", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    ENGINES[given.engine](given.text, given.output)


if __name__ == "__main__":
    main()
