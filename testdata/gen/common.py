"""What the generators share: reproducible torch, JSON with one spelling, versions.

Import this before torch: the environment must be set first.
"""

import os

# Reproducible across machines with AVX2: torch and MKL choose their kernels, and
# so their order of summation, by CPU. bitsandbytes' dynamic 8-bit map comes from
# torch.linspace, whose last bits depend on this too.
os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
os.environ["MKL_CBWR"] = "AVX2"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import importlib.metadata
import json
from pathlib import Path

import torch

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def versions(*packages):
    """The installed version of each package, without a local build tag."""
    return {p: importlib.metadata.version(p).split("+")[0] for p in packages}


def write_json(path, value):
    """Writes JSON with two-space indent, lists of scalars on one line, and a final newline."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_dump(value, "") + "\n", encoding="utf-8")


def _dump(value, indent):
    inner = indent + "  "
    if isinstance(value, dict) and value:
        body = (f"{inner}{json.dumps(k)}: {_dump(v, inner)}" for k, v in value.items())
        return "{\n" + ",\n".join(body) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)) and any(isinstance(v, (dict, list, tuple)) for v in value):
        body = (inner + _dump(v, inner) for v in value)
        return "[\n" + ",\n".join(body) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
