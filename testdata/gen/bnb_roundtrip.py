"""Checks nibble's 4-bit checkpoints with transformers and bitsandbytes, both ways, on a CPU.

    go build -o nibble ./cmd/nibble
    python testdata/gen/bnb_roundtrip.py --nibble ./nibble

Versions are those of requirements.txt. For NF4 and FP4, with and without double quantization, in three dtypes:

1. a small random Llama is saved; `nibble quantize` makes a 4-bit checkpoint of it; transformers loads that. Codes and plain
   absmax must be what bitsandbytes makes of the same weights, and the logits those of the plain model with the decoded
   weights in it;
2. transformers quantizes and saves the model itself; `nibble dequantize` must give the bits bitsandbytes decodes.

For LLM.int8 in three dtypes, what nibble and transformers quantize and save must be the same, and be decoded to the same bits.

One layer's rows are not whole blocks. bitsandbytes' CPU library is wrong there where it has AVX-512 (it looks up the absmax
by row), so decoding goes through its default kernel, for which dequantize_4bit on the CPU is replaced.
"""

import argparse
import itertools
import os
import subprocess
import tempfile
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"
from common import torch
import bitsandbytes
import bitsandbytes.functional as F
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def use_default_kernel():
    op = torch.ops.bitsandbytes.dequantize_4bit.default
    default = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
    lib = torch.library.Library("bitsandbytes", "IMPL")
    lib.impl("dequantize_4bit", lambda *args: op.redispatch(default, *args), "CPU", allow_override=True)
    return lib


def linears(model):
    return {n + ".weight": m for n, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}


def decoded(model):
    return {n: F.dequantize_4bit(m.weight.data, m.weight.quant_state) for n, m in linears(model).items()}


def load(path, dtype):
    # In training mode: in evaluation some CPUs repack the weights and round the absmax to BF16.
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, device_map="cpu").train()


def from_nibble(original, quantized, dtype, kind, double):
    model, plain = load(quantized, dtype), load(original, dtype)
    mine = load_file(quantized / "model.safetensors")
    layers = linears(model)
    assert len(layers) == 14, sorted(layers)
    for name, values in decoded(model).items():
        weight = plain.get_parameter(name)
        packed, state = F.quantize_4bit(weight.data, blocksize=64, quant_type=kind)
        assert torch.equal(packed, mine[name]), (name, "codes")
        ours = layers[name].weight.quant_state
        assert ours.nested == double and ours.dtype == dtype and ours.blocksize == 64, (name, ours)
        if double:
            scales = F.dequantize_blockwise(ours.absmax, ours.state2) + ours.offset
            assert (scales - state.absmax).abs().max() < 0.02 * state.absmax.max(), (name, "double quantization")
            assert abs(ours.offset - state.absmax.mean()) <= 3e-7 * ours.offset, (name, "offset")
        else:
            assert torch.equal(state.absmax, mine[name + ".absmax"]), (name, "absmax")
        weight.data.copy_(values)
    assert not isinstance(model.lm_head, bitsandbytes.nn.Linear4bit)
    tokens = torch.arange(48).remainder(96)[None]
    with torch.no_grad():
        a, b = model(tokens).logits.float(), plain(tokens).logits.float()
    error = ((a - b).norm() / b.norm()).item()
    # The 4-bit layers compute in the same dtype; what differs is the order of sums.
    assert error < {torch.float32: 1e-6}.get(dtype, 1e-2), error
    return error


def to_nibble(nibble, original, work, dtype, name, kind, double):
    model = AutoModelForCausalLM.from_pretrained(original, dtype=dtype, device_map="cpu", quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=dtype))
    model.save_pretrained(work / "saved")
    subprocess.run([nibble, "dequantize", work / "saved", work / "decoded", "--dtype", name], check=True)
    got = load_file(work / "decoded" / "model.safetensors")
    for weight, want in decoded(model).items():
        assert torch.equal(got[weight], want), (weight, "decoded")
    loaded = AutoModelForCausalLM.from_pretrained(work / "decoded", dtype=dtype)
    assert not linears(loaded)


def int8_to_nibble(nibble, original, work, dtype, name):
    """As to_nibble, of LLM.int8; and what nibble writes is what transformers saves, but for the order of its file."""
    config = BitsAndBytesConfig(load_in_8bit=True)
    model = AutoModelForCausalLM.from_pretrained(original, dtype=dtype, device_map="cpu", quantization_config=config)
    model.save_pretrained(work / "saved")
    subprocess.run([nibble, "dequantize", work / "saved", work / "decoded", "--dtype", "f32"], check=True)
    subprocess.run([nibble, "quantize", original, work / "quantized", "--type", "int8"], check=True)
    got, theirs, ours = (load_file(work / d / "model.safetensors") for d in ("decoded", "saved", "quantized"))
    assert theirs.keys() == ours.keys()
    eights = {n.removesuffix("SCB") + "weight": n for n in theirs if n.endswith(".SCB")}
    assert len(eights) == 14
    for key, want in theirs.items():
        assert want.dtype == ours[key].dtype and torch.equal(want, ours[key]), key
    for weight, scb in eights.items():
        assert torch.equal(got[weight], F.int8_vectorwise_dequant(theirs[weight], theirs[scb])), weight


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--nibble", type=Path, required=True, help="the binary")
    nibble = p.parse_args().nibble.resolve()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lib = use_default_kernel()
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=96, max_position_embeddings=64))
    for (name, dtype), kind, double in itertools.product(DTYPES.items(), ("nf4", "fp4"), (True, False)):
        with tempfile.TemporaryDirectory() as tmp:
            work = Path(tmp)
            model.to(dtype).save_pretrained(work / "original")
            flags = [] if double else ["--no-double-quant"]
            subprocess.run([nibble, "quantize", work / "original", work / "quantized", "--type", kind, *flags], check=True)
            error = from_nibble(work / "original", work / "quantized", dtype, kind, double)
            to_nibble(nibble, work / "original", work, dtype, name, kind, double)
        print(f"{kind} {name} {'double' if double else 'plain '} logits differ by {error:.1e}")
    for name, dtype in DTYPES.items():
        with tempfile.TemporaryDirectory() as tmp:
            model.to(dtype).save_pretrained(Path(tmp, "original"))
            int8_to_nibble(nibble, Path(tmp, "original"), Path(tmp), dtype, name)
        print(f"int8 {name} the same bytes")
    del lib


if __name__ == "__main__":
    main()
