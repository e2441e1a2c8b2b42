"""Makes formats/hf/testdata/pickled: the model of formats/hf/testdata/sharded as transformers saved it before safetensors.

transformers 5 does not write .bin files any more. Run with transformers 4.57.6 and torch 2.11.0:

    python testdata/gen/hf_pickled.py --model formats/hf/testdata/sharded --out formats/hf/testdata/pickled
"""

import argparse
import shutil
from pathlib import Path

from common import torch, versions
from transformers import LlamaForCausalLM

VERSIONS = {"transformers": "4.57.6", "torch": "2.11.0"}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--model", type=Path, required=True)
    args.add_argument("--out", type=Path, required=True)
    args = args.parse_args()
    if versions(*VERSIONS) != VERSIONS:
        raise SystemExit(f"needs {VERSIONS}")
    shutil.rmtree(args.out, ignore_errors=True)
    model = LlamaForCausalLM.from_pretrained(args.model, torch_dtype=torch.bfloat16)
    model.save_pretrained(args.out, max_shard_size=1500, safe_serialization=False)
    for path in args.out.iterdir():
        path.chmod(0o644)


main()
