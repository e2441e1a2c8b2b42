"""Makes formats/safetensors/testdata: small files as the reference implementation writes them.

    python testdata/gen/safetensors_files.py --out formats/safetensors/testdata
"""

import argparse
import ctypes
import hashlib
from pathlib import Path

from common import torch, versions, write_json
from safetensors import TensorSpec, deserialize, serialize_file
from safetensors.torch import save_file

# Every dtype that the Python package can name, with the format's own name. It cannot
# name the two 6-bit floats; the tests write those themselves.
DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "float8_e5m2": "F8_E5M2", "float8_e4m3fn": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int16": "I16", "uint16": "U16", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "uint32": "U32",
    "float32": "F32", "complex64": "C64", "float64": "F64", "int64": "I64", "uint64": "U64",
    "float4_e2m1fn_x2": "F4",
}
SIZE = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4,
        "C64": 8, "F64": 8, "I64": 8, "U64": 8}


def dtypes(path):
    """One tensor of each dtype, shape [2, 3] ([2, 6] for F4), its bytes counting up from its place in the list."""
    specs, keep = {}, []
    for i, (name, dtype) in enumerate(DTYPES.items()):
        n = 6 * SIZE.get(dtype, 1)
        buf = ctypes.create_string_buffer(bytes((i + j) % 256 for j in range(n)), n)
        keep.append(buf)
        specs["t." + dtype] = TensorSpec(dtype=name, shape=[2, 3], data_ptr=ctypes.addressof(buf), data_len=n)
    serialize_file(specs, str(path), {"format": "pt"})


def shapes(path):
    """A scalar, tensors without elements, an odd number of bytes before wider types, names and metadata to escape."""
    save_file({
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 4),
        "empty.too": torch.zeros(3, 0, 2, dtype=torch.float16),
        "odd": torch.arange(3, dtype=torch.uint8),
        "half": torch.tensor([1.0, -2.0, 65504.0], dtype=torch.float16),
        "quoted \" and \\ and \n and \u00e9 \u4e2d \U0001f600": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "double": torch.tensor([1e-300], dtype=torch.float64),
    }, path, {"a \"note\"": "line\nand \u00e9\t\"quoted\""})  # one key alone: the writer shuffles them


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=Path, required=True)
    out = args.parse_args().out
    expect = {}
    for name, make in {"dtypes": dtypes, "shapes": shapes}.items():
        path = out / f"{name}.safetensors"
        make(path)
        path.chmod(0o644)
        expect[path.name] = {
            n: {"dtype": t["dtype"], "shape": t["shape"], "sha256": hashlib.sha256(t["data"]).hexdigest()}
            for n, t in sorted(deserialize(path.read_bytes()))
        }
    write_json(out / "expect.json", {"versions": versions("safetensors", "torch"), "files": expect})


main()
