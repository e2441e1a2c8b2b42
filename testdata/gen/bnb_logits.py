"""Makes testdata/bnb_logits.safetensors and .json: logits that transformers and bitsandbytes get from what nibble quantizes.

    go build -o nibble ./cmd/nibble
    python testdata/gen/bnb_logits.py --nibble ./nibble --stories cmd/nibble/demo/stories260K --families testdata/families --out testdata

Versions are those of requirements.txt. For each model and each set of flags, `nibble quantize` makes a directory, transformers
loads it, and the logits after the tokens are kept, as the log of the probabilities, in float32. What is loaded must say what
the flags do, and nothing may be missing or left over. Three things are compared on the way, and printed: those logits with the
ones of what `nibble dequantize` makes of the directory, for int8 also those of bitsandbytes' own product, which rounds the
activations too, and what transformers saves again with what nibble wrote.

bitsandbytes' CPU kernel is wrong where rows are not whole blocks and it has AVX-512, so decoding goes through its default
kernel: see bnb_roundtrip.py.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from bnb_roundtrip import use_default_kernel
from common import torch, versions, write_json
import bitsandbytes
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

TOKENS = [1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395]
FLAGS = {
    "nf4": [],
    "nf4-plain": ["--no-double-quant"],
    "nf4-bf16": ["--quant-storage", "bf16"],
    "nf4-f32": ["--quant-storage", "f32", "--no-double-quant"],
    "nf4-32": ["--block-size", "32"],
    "nf4-128": ["--block-size", "128"],
    "nf4-4096": ["--block-size", "4096", "--no-double-quant"],
    "fp4": ["--type", "fp4"],
    "int8": ["--type", "int8"],
    "skip": ["--skip-modules", r"lm_head,down_proj,model\.layers\.0\..*k_proj"],
}
FOUR, EIGHT = bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt


def load(path):
    model, info = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", device_map="cpu", output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info.get(problem), (path, problem, info[problem])
    model.eval()
    for module in model.modules():
        if isinstance(module, FOUR):
            module.compute_dtype = torch.float32
            module.training = True  # in evaluation some CPUs repack the weights and round the absmax to BF16
    return model


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.tensor([TOKENS]), use_cache=False).logits[0, -1].float().log_softmax(-1)


def check(name, flags, model, original):
    """Checks that the modules are as the flags say."""
    four = {n: m for n, m in model.named_modules() if isinstance(m, FOUR)}
    eight = {n for n, m in model.named_modules() if isinstance(m, EIGHT)}
    plain = {n for n, m in original.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    if name == "skip":
        plain -= {n for n in plain if n.endswith("down_proj") or "layers.0" in n and n.endswith("k_proj")}
    assert (eight if name == "int8" else set(four)) == plain, (name, plain ^ set(four))
    size = int(flags[flags.index("--block-size") + 1]) if "--block-size" in flags else 64
    for m in four.values():
        state = m.weight.quant_state
        assert state.blocksize == size and state.nested == ("--no-double-quant" not in flags), name
        assert state.quant_type == ("fp4" if name == "fp4" else "nf4"), name
        assert m.weight.dtype == {"nf4-bf16": torch.bfloat16, "nf4-f32": torch.float32}.get(name, torch.uint8), name


def same(path, model):
    """Checks that the state of a loaded model is what the directory holds, bit for bit.

    transformers 5.23 does not save a model that was loaded in 4 or 8 bits: reverse_op raises NotImplementedError.
    """
    a, b = load_file(path / "model.safetensors"), model.state_dict()
    if model.config.tie_word_embeddings:
        b.pop("lm_head.weight")
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        assert torch.equal(a[name].reshape(-1).view(torch.uint8), b[name].reshape(-1).view(torch.uint8)), name


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--nibble", type=Path, required=True, help="the binary")
    p.add_argument("--stories", type=Path, required=True, help="stories260K as a directory")
    p.add_argument("--families", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lib = use_default_kernel()
    models = {"stories260K": args.stories, **{n: args.families / n for n in ("qwen2", "gpt2", "qwen2moe", "gemma3")}}
    kept, cases, worst = {}, [], 0.0
    wide = tempfile.TemporaryDirectory()
    for model_name, stored in models.items():
        # bitsandbytes rounds decoded weights to what they were before; of F32 nothing is rounded.
        path = Path(wide.name, model_name)
        subprocess.run([args.nibble.resolve(), "convert", stored, path, "--outtype", "f32", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        original = load(path)
        for name, flags in FLAGS.items():
            if model_name not in ("stories260K", "qwen2") and name not in ("nf4", "int8"):
                continue
            with tempfile.TemporaryDirectory() as tmp:
                q, decoded = Path(tmp, "q"), Path(tmp, "decoded")
                subprocess.run([args.nibble.resolve(), "quantize", path, q, "--quiet", *flags], check=True, stdout=subprocess.DEVNULL)
                subprocess.run([args.nibble.resolve(), "dequantize", q, decoded, "--dtype", "f32", "--quiet"], check=True, stdout=subprocess.DEVNULL)
                model = load(q)
                if model_name in ("stories260K", "qwen2"):
                    check(name, flags, model, original)
                if model_name != "qwen2moe":  # experts have other names there
                    same(q, AutoModelForCausalLM.from_pretrained(q, device_map="cpu"))
                note = ""
                if name == "int8":
                    real = logits(model)
                    model = model.dequantize(dtype=torch.float32)
                    note = f"; bitsandbytes' own product differs by {(real - logits(model)).abs().max().item():.2g}"
                got, plain = logits(model), logits(load(decoded))
            difference = (got - plain).abs().max().item()
            assert difference < 1e-4, (model_name, name, difference)
            worst = max(worst, difference)
            print(f"{model_name} {name}: logits differ from those of the decoded model by {difference:.2g}{note}")
            kept[f"{model_name}.{name}"] = got
            cases.append({"name": f"{model_name}.{name}", "model": model_name, "flags": flags})
    print(f"at most {worst:.2g}")
    del lib
    save_file(kept, args.out / "bnb_logits.safetensors")
    write_json(args.out / "bnb_logits.json", {
        "versions": versions("torch", "transformers", "bitsandbytes"), "tokens": TOKENS, "cases": cases})


if __name__ == "__main__":
    main()
