"""Makes testdata/stories260K/loftq.json: the errors that PEFT's own LoftQ leaves.

    python testdata/gen/loftq_golden.py --model STORIES_HF --out testdata

peft.utils.loftq_utils.loftq_init moves its tensors to a GPU; here they stay where they are. It takes NF4 without double
quantization in blocks of 64 and a whole SVD. Errors are Frobenius norms relative to that of the weight.
"""

import argparse
from pathlib import Path

from common import torch, versions, write_json
import bitsandbytes
from peft.utils import loftq_utils
from safetensors.torch import load_file

RANK = 8


def stay(function):
    """The method without its moves to "cuda"."""
    def to(self, *args, **kwargs):
        return function(self, *("cpu" if a == "cuda" else a for a in args),
                        **{k: "cpu" if v == "cuda" else v for k, v in kwargs.items()})
    return to


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    torch.Tensor.to = stay(torch.Tensor.to)
    bitsandbytes.nn.Params4bit.to = lambda self, device: self._quantize("cpu")
    errors = {}
    for iterations in (1, 5):
        made = errors[str(iterations)] = {}
        for name, w in sorted(load_file(args.model / "model.safetensors").items()):
            if name.endswith("_proj.weight"):
                w = w.float()
                q, a, b = loftq_utils.loftq_init(w, num_bits=4, reduced_rank=RANK, num_iter=iterations)
                made[name.removesuffix(".weight")] = ((w - q - b @ a).norm() / w.norm()).item()
    write_json(args.out / "stories260K" / "loftq.json",
               {"versions": versions("peft", "bitsandbytes", "torch"), "rank": RANK, "errors": errors})


main()
