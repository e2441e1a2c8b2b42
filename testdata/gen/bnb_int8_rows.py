"""Makes nf4/bnb/testdata/int8_rows.safetensors: what bitsandbytes stores of awkward matrices as LLM.int8.

    python testdata/gen/bnb_int8_rows.py --out nf4/bnb/testdata

For each dtype D of F32, F16 and BF16: D.input, and what bitsandbytes.nn.Int8Params makes of it on the CPU, D.weight and
D.SCB. The versions are those of bnb_int8.py; the same bytes on every run.
"""

import argparse
import os
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"
from common import torch
import bitsandbytes
from safetensors.torch import save_file

COLS = 131


def rows():
    g = torch.Generator().manual_seed(8)
    normal = torch.randn(12, COLS, generator=g) * 0.02
    heavy = torch.randn(6, COLS, generator=g) / (torch.rand(6, COLS, generator=g) + 1e-3)
    # Multiples of a half of the step: half of them lie in the middle of two integers.
    step = torch.arange(COLS).float() - COLS // 2
    ties = torch.stack([step * 0.5, step * 0.25, step / 2**12, -step * 0.5])
    ties[:, 0] = torch.tensor([127.0, 127.0, 127 / 2**12, -127.0])
    edge = torch.zeros(10, COLS)
    edge[1] = -0.0
    edge[2, 5] = 65504.0
    edge[3, 7], edge[3, 8] = 6e-8, -6e-8  # the smallest F16
    edge[4, 9] = 1e-9  # 0 as an F16
    edge[5] = 0.25
    edge[6] = torch.linspace(-1, 1, COLS)
    edge[7, 3], edge[7, 4] = 3e-5, 1e-6
    # Here 127 / absmax and 127 * (1 / absmax) give different integers.
    edge[8, :2] = torch.tensor([0.058135986328125, 0.0235748291015625])
    edge[9, :2] = torch.tensor([0.0511474609375, -0.02557373046875])
    return torch.cat([normal, heavy, ties, edge])


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, required=True)
    out = {}
    for name, dtype in {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}.items():
        x = rows()
        if dtype == torch.bfloat16:
            x[x == 65504.0] = 65280.0  # 65504 rounds to 65536, which no F16 is
        x = x.to(dtype)
        q = bitsandbytes.nn.Int8Params(x.clone(), requires_grad=False).to("cpu")
        assert q.data.dtype == torch.int8 and q.SCB.dtype == torch.float32
        out |= {f"{name}.input": x, f"{name}.weight": q.data, f"{name}.SCB": q.SCB}
    save_file(out, p.parse_args().out / "int8_rows.safetensors")


if __name__ == "__main__":
    main()
