"""Makes formats/hf/testdata/sharded: a tiny Llama as transformers saves it in shards.

    python testdata/gen/hf_sharded.py --out formats/hf/testdata/sharded
"""

import argparse
import hashlib
import shutil
from pathlib import Path

from common import torch, versions, write_json
from transformers import LlamaConfig, LlamaForCausalLM


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=Path, required=True)
    out = args.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=11, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=False))
    model.to(torch.bfloat16).save_pretrained(out, max_shard_size=1500)
    for path in out.iterdir():
        path.chmod(0o644)
    tensors = {n: {"shape": list(p.shape), "sha256": hashlib.sha256(p.view(torch.uint8).numpy().tobytes()).hexdigest()}
               for n, p in sorted(model.state_dict().items())}
    write_json(out.parent / "expect.json", {"versions": versions("transformers", "torch", "safetensors"), "tensors": tensors})


main()
