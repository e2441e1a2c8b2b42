"""What PyTorch makes of integers, booleans and E8M0 as float32: goldens of tensor/floats.

    python plain_goldens.py tensor/floats/testdata
"""

import json
import sys
from pathlib import Path

import torch

out = Path(sys.argv[1])
TYPES = {
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "U8": torch.uint8, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
}


def hexed(t):
    return bytes(t.contiguous().view(torch.uint8).tolist()).hex()


ints = {}
for name, dtype in TYPES.items():
    lo, hi = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    values = {0, 1, 2, 3, 100, 127, 128, 255, lo, lo + 1, hi - 1, hi}
    for k in (24, 25, 31, 32, 40, 53, 60, 62):
        for half in (0, 1 << max(k - 24, 0), 3 << max(k - 24, 0)):  # ties, even and odd below, and their neighbours
            values |= {(1 << k) + half + d for d in (-1, 0, 1)}
    values |= {-v for v in values}
    values = sorted(v for v in values if lo <= v <= hi)
    if dtype == torch.uint64:
        t = torch.tensor([v - (1 << 64) if v >> 63 else v for v in values], dtype=torch.int64).view(torch.uint64)
    else:
        t = torch.tensor(values, dtype=dtype)
    ints[name] = {"Bytes": hexed(t), "Values": hexed(t.to(torch.float32))}
t = torch.tensor([0, 1, 2, 128, 255], dtype=torch.uint8).view(torch.bool)
ints["BOOL"] = {"Bytes": "00010280ff", "Values": hexed(t.to(torch.float32))}
(out / "ints_to_f32.json").write_text(json.dumps(ints, indent=1) + "\n")

f8 = json.loads((out / "f8_to_f32.json").read_text())
codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e8m0fnu).to(torch.float32)
f8["F8_E8M0"] = ["nan" if x != x else f"{b:08x}" for x, b in zip(codes.tolist(), codes.view(torch.int32).tolist())]
(out / "f8_to_f32.json").write_text(json.dumps(f8))
