"""Merges an adapter by PEFT, for `make bench-merge`.

    python3 peft_merge.py MODEL ADAPTER OUT
    python3 peft_merge.py --compare OUT OTHER

The first prints the seconds from after the imports to when OUT is on the disk, and the
versions. The second says how many elements of two merged models differ, and by how
many steps of the type at most.
"""

import glob
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors import safe_open


def tensors(directory):
    for path in sorted(glob.glob(os.path.join(directory, "*.safetensors"))):
        with safe_open(path, "pt") as f:
            for name in f.keys():
                yield name, path


def compare(one, other):
    where = dict(tensors(other))
    total = differ = steps = 0
    for name, path in tensors(one):
        with safe_open(path, "pt") as f, safe_open(where.pop(name), "pt") as g:
            a, b = f.get_tensor(name), g.get_tensor(name)
        if a.dtype != b.dtype or a.shape != b.shape:
            sys.exit(f"peft_merge.py: {name}: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}")
        total += a.numel()
        # As integers in the order of the numbers.
        x, y = (t.view(torch.int16).to(torch.int32) for t in (a, b))
        x, y = (torch.where(t < 0, -(t & 0x7FFF), t) for t in (x, y))
        d = (x - y).abs()
        differ += int((d > 0).sum())
        steps = max(steps, int(d.max()))
    if where:
        sys.exit(f"peft_merge.py: only {other} has {sorted(where)[:4]}")
    print(f"{differ} of {total} elements differ, by at most {steps} steps of the type")


def merge(model, adapter, out):
    import peft
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    start = time.perf_counter()
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, device_map="cpu")
    merged = peft.PeftModel.from_pretrained(base, adapter).merge_and_unload()
    merged.save_pretrained(out)
    for path in glob.glob(os.path.join(out, "*")):
        with open(path, "rb+") as f:
            os.fsync(f.fileno())
    print(time.perf_counter() - start)
    print(f"PEFT {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")


if sys.argv[1] == "--compare":
    compare(*sys.argv[2:])
else:
    merge(*sys.argv[1:])
