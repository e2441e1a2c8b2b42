"""Checks nf4/testdata/golden.tar.zst against the released bitsandbytes (versions in requirements.txt).

    python testdata/gen/bnb_golden.py nf4/testdata/golden.tar.zst

The archive was made from bitsandbytes' source under an older torch (nf4/testdata/README.md). Every case is quantized and
decoded again here by the installed package: codes, plain absmax and decoded bits must be the same. With double quantization
the stored scales are decoded; they are not made again, since the CPU library of bitsandbytes 0.50 rounds them by a rule of
its own. Decoded BF16 values below the normal range may come out as 0: AVX512-BF16, where the CPU has it, converts so.
Needs zstd.
"""

import argparse
import io
import subprocess
import tarfile

from common import torch
import bitsandbytes.functional as F
from safetensors.torch import load

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def same(a, b):
    return torch.equal(a.nan_to_num(nan=12345.0), b.nan_to_num(nan=12345.0)) and torch.equal(a.isnan(), b.isnan())


def check(name, case):
    kind = "fp4" if name.startswith("fp4") else "nf4"
    stats = {k: v for k, v in case.items()
             if k in ("absmax", "quant_map", "nested_absmax", "nested_quant_map") or k.startswith("quant_state.")}
    state = F.QuantState.from_dict(stats, torch.device("cpu"))
    packed, plain = F.quantize_4bit(case["input"], blocksize=state.blocksize, quant_type=kind)
    assert torch.equal(packed, case["packed"]), (name, "packed")
    assert same(plain.absmax, case["absmax_f32_plain"]), (name, "absmax")
    for key, dtype in DTYPES.items():
        state.dtype = dtype
        got, want = F.dequantize_4bit(case["packed"], state), case["dequant_" + key]
        if dtype == torch.bfloat16:
            want = want.where((got != 0) | (want.abs() >= torch.finfo(dtype).smallest_normal), 0)
        assert same(got, want), (name, key)
    if state.nested:
        scales = F.dequantize_blockwise(state.absmax, state.state2) + state.offset
        assert torch.equal(scales, case["absmax_effective_f32"]), (name, "effective absmax")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("archive")
    tar = subprocess.run(["zstd", "-dcq", p.parse_args().archive], check=True, capture_output=True).stdout
    n = 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as files:
        for f in files:
            if "/" not in f.name and "_b" in f.name:
                check(f.name, load(files.extractfile(f).read()))
                n += 1
    print(n, "cases agree")


if __name__ == "__main__":
    main()
