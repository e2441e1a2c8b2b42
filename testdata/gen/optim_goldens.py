"""Goldens for package train/optim: weights after each step of the peers' optimizers.

    python optim_goldens.py --out train/optim/testdata

torch's AdamW and SGD, transformers' Adafactor and bitsandbytes' AdamW8bit and Lion
(its CPU backend), in float32 on one CPU thread. The README beside the output explains the files.
"""

import argparse
from pathlib import Path

import common  # first: it sets up torch

import bitsandbytes as bnb
import bitsandbytes.backends.cpu.ops as cpu
import bitsandbytes.functional
import numpy as np
import torch
from safetensors.torch import save_file
from transformers.optimization import Adafactor

STEPS = 20
SHAPES = {"matrix": [4, 1100], "small": [6, 5], "vector": [37]}
EVERY = 32  # of the matrix, this one's elements are stored

ADAM = dict(betas=(0.9, 0.999), eps=1e-8)
RUNS = {
    "adamw": (torch.optim.AdamW, dict(lr=1e-2, weight_decay=0.1, **ADAM)),
    "adamw_betas": (torch.optim.AdamW, dict(lr=1e-2, weight_decay=0.0, betas=(0.8, 0.95), eps=1e-5)),
    "adamw_8bit": (bnb.optim.AdamW8bit, dict(lr=1e-2, weight_decay=0.1, **ADAM)),
    "lion": (bnb.optim.Lion, dict(lr=1e-3, weight_decay=0.1, betas=(0.9, 0.99))),
    "sgd": (torch.optim.SGD, dict(lr=1e-1, weight_decay=0.0)),
    "sgd_momentum": (torch.optim.SGD, dict(lr=1e-1, weight_decay=0.1, momentum=0.9)),
    "adafactor": (Adafactor, dict(lr=1e-2, weight_decay=0.1, scale_parameter=False, relative_step=False)),
}


def numbers(name, step, n):
    """n numbers of magnitudes from 0 to 1 that any language can make: splitmix64 of a counter."""
    mask = (1 << 64) - 1
    out = []
    for i in range(n):
        z = ((len(name) << 56) + (step << 32) + i + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
        out.append(((z >> 40) - (1 << 23)) * 2.0**-23 * 2.0 ** -(i % 7))
    return torch.tensor(np.array(out, dtype=np.float32))


def portable(a, code, absmax_out, out, blocksize):
    """quantize_blockwise as bitsandbytes' default backend has it (backends/default/ops.py): the nearest
    value. That of its CPU library looks codes up in a coarse table, and does not always find that."""
    a, bounds = a.flatten(), (code[:-1] + code[1:]) / 2
    q, absmax = [], []
    for block in a.split(blocksize):
        top = block.abs().max()
        least = top.clamp(min=1e-38)
        scaled = block * (1 / least) if len(block) == blocksize else block / least
        q.append(torch.bucketize(scaled.clamp(-1, 1), bounds))
        absmax.append(top)
    out.copy_(torch.cat(q).to(torch.uint8).reshape(out.shape))
    absmax_out.copy_(torch.stack(absmax))


def run(make, options, native=False):
    if not native:
        cpu._quant_blockwise_fp32_direct = portable
    params = {k: torch.nn.Parameter(numbers(k, 0, int(np.prod(s))).reshape(s)) for k, s in SHAPES.items()}
    rest = dict(options)
    decay = rest.pop("weight_decay")
    opt = make([
        {"params": [p for p in params.values() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in params.values() if p.ndim == 1], "weight_decay": 0.0},
    ], **rest)
    rows = {k: [] for k in SHAPES}
    for step in range(1, STEPS + 1):
        for g in opt.param_groups:
            g["lr"] = options["lr"] * (1 - step / 64)
        for k, p in params.items():
            p.grad = numbers(k, step, p.numel()).reshape(p.shape)
        opt.step()
        for k, p in params.items():
            v = p.detach().flatten().clone()
            rows[k].append(v[::EVERY] if k == "matrix" else v)
    return {k: torch.stack(v) for k, v in rows.items()}, {k: opt.state[p] for k, p in params.items()}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=Path, required=True)
    out = args.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    original = cpu._quant_blockwise_fp32_direct
    tensors, table = {}, {}
    for name, (make, options) in RUNS.items():
        rows, state = run(make, options)
        for k, v in rows.items():
            tensors[f"{name}.{k}"] = v.contiguous()
        for k, s in state.items():
            for f, v in s.items():
                if isinstance(v, torch.Tensor) and v.numel() > 1 and not f.startswith("qmap"):
                    if k == "matrix" and v.numel() > 2000 and v.dtype == torch.float32:
                        v = v.flatten()[::EVERY]
                    tensors[f"{name}.{k}.{f}"] = v.contiguous().clone()
        table[name] = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    cpu._quant_blockwise_fp32_direct = original
    rows, _ = run(*RUNS["adamw_8bit"], native=True)
    d = max(float((rows[k] - tensors[f"adamw_8bit.{k}"]).abs().max()) for k in SHAPES)
    print("the CPU library's quantizer changes a weight by up to", d)
    save_file(tensors, out / "steps.safetensors")
    save_file({
        "signed": bitsandbytes.functional.create_dynamic_map(signed=True),
        "unsigned": bitsandbytes.functional.create_dynamic_map(signed=False),
    }, out / "maps.safetensors")
    common.write_json(out / "steps.json", {"versions": common.versions("torch", "transformers", "bitsandbytes"), "runs": table})


main()
