"""Parquet files and the rows they hold, for train/data/records.

    python3 -m venv venv && venv/bin/pip install pyarrow==26.0.1 datasets==5.2.0 polars==2.1.0
    venv/bin/python testdata/gen/parquet_goldens.py train/data/records/testdata

Each NAME.parquet is read by pyarrow again, and what it reads is written as
NAME.jsonl the way the package documents its types.
"""

import base64
import datetime
import decimal
import json
import math
import random
import sys
from pathlib import Path

import datasets
import polars
import pyarrow as pa
import pyarrow.parquet as pq

out = Path(sys.argv[1])
random.seed(9)


def value(v, t):
    if v is None:
        return None
    if pa.types.is_map(t):
        return [{"key": value(k, t.key_type), "value": value(x, t.item_type)} for k, x in v]
    if pa.types.is_list(t) or pa.types.is_large_list(t) or pa.types.is_fixed_size_list(t):
        return [value(x, t.value_type) for x in v]
    if pa.types.is_struct(t):
        return {f.name: value(v[f.name], f.type) for f in t}
    if isinstance(v, bytes):
        try:
            if pa.types.is_fixed_size_binary(t) or b"\0" in v:
                raise ValueError
            return v.decode()
        except ValueError:
            return base64.b64encode(v).decode()
    if isinstance(v, float):
        return v if math.isfinite(v) else None
    if isinstance(v, decimal.Decimal):
        return {"DECIMAL": str(v)}
    if isinstance(v, datetime.datetime):
        if v.tzinfo:
            v = v.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        text = v.isoformat()
        return text.rstrip("0") if "." in text else text
    if isinstance(v, datetime.time):
        text = v.isoformat()
        return text.rstrip("0") if "." in text else text
    if isinstance(v, datetime.date):
        return v.isoformat()
    return v


def dump(row):
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    while '{"DECIMAL":"' in text:  # the digits as they are
        head, tail = text.split('{"DECIMAL":"', 1)
        number, tail = tail.split('"}', 1)
        text = head + number + tail
    return text


def expect(name):
    table = pq.read_table(out / f"{name}.parquet")
    lines = []
    for row in table.to_pylist():
        lines.append(dump({f.name: value(row[f.name], f.type) for f in table.schema}))
    (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def write(name, table, **options):
    pq.write_table(table, out / f"{name}.parquet", **options)
    expect(name)


words = "Once upon a time there was naïve 日本語 😀 \" \\ \n \t end".split(" ")


def text(n):
    return " ".join(random.choice(words) for _ in range(n))


def chats(n):
    return [
        {
            "id": i,
            "messages": [{"role": role, "content": text(4)} for role in ["system", "user", "assistant", "user", "assistant"][: random.randint(1, 5)]],
            "tags": random.choice([None, [], ["a"], ["a", None, "b"]]),
            "score": random.choice([None, 0.5, 1.25, i / 3]),
        }
        for i in range(n)
    ]


chat = pa.Table.from_pylist(chats(40))
for codec in ["none", "snappy", "gzip", "zstd"]:
    write(f"chat-{codec}", chat, compression=codec, row_group_size=17, write_page_checksum=True)
write("chat-pages2", chat, data_page_version="2.0", data_page_size=64, write_batch_size=4, compression="zstd", row_group_size=31)
write("chat-pages1", chat, data_page_size=64, write_batch_size=4, use_dictionary=False, row_group_size=31)

numbers = pa.table(
    {
        "small": pa.array([random.randint(-5, 5) for _ in range(300)], pa.int32()),
        "large": pa.array([random.choice([None, random.randint(-(2**63), 2**63 - 1)]) for _ in range(300)], pa.int64()),
        "rising": pa.array([1000 * i + random.randint(0, 9) for i in range(300)], pa.int64()),
        "length": pa.array([text(random.randint(0, 4)) for _ in range(300)]),
        "prefix": pa.array([f"the story number {i // 7}, part {i}" for i in range(300)]),
        "fixed": pa.array([random.randbytes(3) for _ in range(300)], pa.binary(3)),
        "float": pa.array([random.random() for _ in range(300)], pa.float32()),
        "double": pa.array([random.choice([None, random.random()]) for _ in range(300)], pa.float64()),
        "yes": pa.array([random.choice([None, True, False]) for _ in range(300)]),
    }
)
for version in ["1.0", "2.0"]:
    write(
        f"encodings-{version[0]}",
        numbers,
        use_dictionary=False,
        data_page_version=version,
        data_page_size=1024,
        write_batch_size=50,
        column_encoding={
            "small": "DELTA_BINARY_PACKED",
            "large": "DELTA_BINARY_PACKED",
            "rising": "DELTA_BINARY_PACKED",
            "length": "DELTA_LENGTH_BYTE_ARRAY",
            "prefix": "DELTA_BYTE_ARRAY",
            "fixed": "DELTA_BYTE_ARRAY",
            "float": "BYTE_STREAM_SPLIT",
            "double": "BYTE_STREAM_SPLIT",
            "yes": "RLE",
        },
    )

when = datetime.datetime(2024, 2, 29, 23, 59, 58, 123456)
deep = pa.list_(pa.struct([("a", pa.list_(pa.list_(pa.int64()))), ("b", pa.struct([("c", pa.string()), ("d", pa.list_(pa.string()))]))]))
types = pa.table(
    {
        "i8": pa.array([-128, 127, None], pa.int8()),
        "u8": pa.array([0, 255, None], pa.uint8()),
        "u32": pa.array([0, 2**32 - 1, None], pa.uint32()),
        "u64": pa.array([0, 2**64 - 1, None], pa.uint64()),
        "f16": pa.array([1.5, None, -2.0], pa.float16()),
        "f64": pa.array([float("nan"), float("inf"), 1e300]),
        "big": pa.array(["a", None, "ü"], pa.large_string()),
        "bytes": pa.array([b"text", b"\xff\x00", None]),
        "category": pa.array(["x", "y", "x"]).dictionary_encode(),
        "money": pa.array([decimal.Decimal("-0.05"), decimal.Decimal("123.45"), None], pa.decimal128(7, 2)),
        "huge": pa.array([decimal.Decimal("-12345678901234567890.123"), decimal.Decimal("0.001"), None], pa.decimal128(38, 3)),
        "date": pa.array([when.date(), datetime.date(1969, 12, 31), None]),
        "ms": pa.array([when.replace(microsecond=120000), datetime.datetime(1900, 1, 1), None], pa.timestamp("ms")),
        "us": pa.array([when, datetime.datetime(1900, 1, 1, 0, 0, 0, 5), None], pa.timestamp("us", "UTC")),
        "clock": pa.array([when.time(), datetime.time(0), None], pa.time64("us")),
        "map": pa.array([[("a", 1), ("b", None)], [], None], pa.map_(pa.string(), pa.int64())),
        "none": pa.nulls(3),
        "four": pa.array([[1, 2], [3, 4], None], pa.list_(pa.int32(), 2)),
        "deep": pa.array(
            [
                [{"a": [[1], [], None, [2, None, 3]], "b": {"c": "x", "d": ["y", None]}}, None, {"a": None, "b": None}, {"a": [], "b": {"c": None, "d": []}}],
                [],
                None,
            ],
            deep,
        ),
    }
)
write("types", types)
write("types-old", types.drop_columns(["f16", "us", "clock"]), version="1.0", use_deprecated_int96_timestamps=True, use_compliant_nested_type=False)

datasets.Dataset.from_list([{**c, "score": 1.0} for c in chats(30)]).to_parquet(str(out / "datasets.parquet"), batch_size=12)
expect("datasets")
polars.DataFrame(chats(30), infer_schema_length=None).write_parquet(out / "polars.parquet", row_group_size=11)
expect("polars")
