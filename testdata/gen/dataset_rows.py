"""A few real rows of data sets that people train on, and Parquet files of them, for cmd/nibble.

    python3 -m venv venv && venv/bin/pip install pyarrow==26.0.1
    venv/bin/python testdata/gen/dataset_rows.py DATASETS cmd/nibble/testdata/data

DATASETS has gsm8k/train.jsonl, mlx-wikisql/train.jsonl, llamafactory/alpaca_en_demo.json
and llamafactory/glaive_toolcall_en_demo.json. Rows are the first that are short enough for
models of 256 positions and tokens of two bytes.
"""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

datasets, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)


def lines(path):
    return [json.loads(line) for line in (datasets / path).read_text().splitlines()]


def first(rows, most, longest=420):
    return [r for r in rows if len(json.dumps(r)) <= longest][:most]


def calls(row):
    return any(t["from"] not in ("human", "gpt") for t in row["conversations"])


def chats(rows):
    """Turns without the calls of tools, and without the tools."""
    for r in rows:
        if not calls(r):
            yield {"conversations": [{"from": t["from"], "value": t["value"]} for t in r["conversations"][:4]]}


sets = {
    "gsm8k": first(lines("gsm8k/train.jsonl"), 24),
    "wikisql": first(lines("mlx-wikisql/train.jsonl"), 24),
    "alpaca": first(json.loads((datasets / "llamafactory/alpaca_en_demo.json").read_text()), 24, 320),
    "sharegpt": first(chats(json.loads((datasets / "llamafactory/glaive_toolcall_en_demo.json").read_text())), 20, 600),
}
for name, rows in sets.items():
    pq.write_table(pa.Table.from_pylist(rows), out / f"{name}.parquet", compression="zstd", store_schema=False)
    print(name, len(rows), {tuple(r) for r in rows}, max(len(json.dumps(r)) for r in rows))
    if name in ("gsm8k", "wikisql"):
        (out / f"{name}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    else:
        (out / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
