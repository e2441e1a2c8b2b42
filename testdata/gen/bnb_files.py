"""Makes nf4/bnb/testdata: what transformers and bitsandbytes save, match and print.

    python testdata/gen/bnb_files.py --out nf4/bnb/testdata

Two of bitsandbytes' CPU kernels are replaced by its default ones, which do what its GPU kernels do. quantize_blockwise
of the CPU library rounds the absmax to 8 bits by a table of 65536 entries that is not always the nearest; dequantize_4bit,
where it is built for AVX-512, takes the wrong absmax if the rows are not whole blocks.
"""

import argparse
import json
import os
import random
import shutil
import struct
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"
from common import torch, versions, write_json
import bitsandbytes
import bitsandbytes.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
from transformers.quantizers.quantizers_utils import should_convert_module
from transformers.utils import logging

SAVED = {
    "nf4_dq": (torch.bfloat16, dict(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                    bnb_4bit_compute_dtype=torch.bfloat16)),
    "fp4_skip": (torch.float16, dict(bnb_4bit_quant_type="fp4", bnb_4bit_compute_dtype=torch.float16,
                                     llm_int8_skip_modules=["lm_head", "mlp.down_proj"])),
    # The codes stored as BF16, as for FSDP.
    "nf4_storage": (torch.float32, dict(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                        bnb_4bit_quant_storage=torch.bfloat16)),
}


def use_default_kernels():
    default = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
    lib = torch.library.Library("bitsandbytes", "IMPL")
    for name in ("quantize_blockwise", "dequantize_4bit"):
        op = getattr(torch.ops.bitsandbytes, name).default
        lib.impl(name, lambda *args, op=op: op.redispatch(default, *args), "CPU", allow_override=True)
    return lib


def models(out):
    torch.manual_seed(5)
    config = LlamaConfig(hidden_size=32, intermediate_size=44, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=40, max_position_embeddings=64)
    model = LlamaForCausalLM(config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.05)
    model.save_pretrained(out / "original")
    for name, (dtype, args) in SAVED.items():
        q = AutoModelForCausalLM.from_pretrained(
            out / "original", dtype=dtype, device_map="cpu",
            quantization_config=BitsAndBytesConfig(load_in_4bit=True, **args))
        q.save_pretrained(out / name)
        decoded = {n + ".weight": F.dequantize_4bit(m.weight.data, m.weight.quant_state)
                   for n, m in q.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
        save_file(decoded, out / name / "dequant.safetensors")
    for extra in out.glob("*/generation_config.json"):
        extra.unlink()


def reprs(path):
    """repr of float32 numbers as Python floats, by their bits."""
    rng = random.Random(1)
    bits = [0, 1 << 31, 1, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff, 0x3f800000, 0xbf800000, 0x3dcccccd]
    for edge in (1e-4, 1e-5, 1e15, 1e16, 1e17, 1e22, 1.0, 2.0**53, 0.052734375, 100.0):
        b = struct.unpack("<I", struct.pack("<f", edge))[0]
        bits += range(b - 3, b + 4)
    bits += [rng.getrandbits(32) for _ in range(400)]
    bits += [struct.unpack("<I", struct.pack("<f", rng.uniform(0, 0.2)))[0] for _ in range(100)]
    rows = []
    for b in bits:
        v = struct.unpack("<f", struct.pack("<I", b))[0]
        if v == v and abs(v) != float("inf"):
            rows.append([b, json.dumps(v)])
    write_json(path, rows)


def skips(path):
    modules = [
        "lm_head", "model.lm_head", "model.embed_tokens", "model.layers.1.mlp.gate", "model.layers.1.mlp.gate_proj",
        "model.layers.1.self_attn.q_proj", "model.layers.11.self_attn.q_proj", "model.layers.11.mlp.experts.3.w1",
        "vision.layers.1.fc1", "fc1", "layers.1", "a.b", "ab",
    ]
    patterns = [
        "lm_head", "model", "model.", "model.layers.1", "model.layers.1.", "layers.1", "layers.*", ".*mlp.gate", "mlp.gate",
        r"model\.layers\.(1|2)\.mlp", "model.layers.1.*proj", "fc1", "q_proj", "proj", "a|ab", "a.", ".*\\.", "",
        r"model\.layers\.\d+\.self_attn", "experts", "model.layers.11.mlp.experts.3.w", "head",
    ]
    write_json(path, [[p, m, not should_convert_module(m, [p])] for p in patterns for m in modules])


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, required=True)
    out = p.parse_args().out
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name in ["original", *SAVED]:
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    lib = use_default_kernels()
    models(out)
    del lib
    reprs(out / "repr.json")
    skips(out / "skip.json")
    write_json(out / "versions.json", versions("torch", "transformers", "bitsandbytes", "safetensors"))


if __name__ == "__main__":
    main()
