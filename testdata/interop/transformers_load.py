"""Loads a model directory in transformers and compares its logits.

    python transformers_load.py DIR EXPECT.json [--adapter DIR] [--kind plain|nf4|fp4|int8] [--tolerance T]
    python transformers_load.py DIR EXPECT.json [--adapter DIR] --write --tokens 1,2,3

DIR is a Hugging Face directory: plain safetensors or of bitsandbytes. With
--adapter, PEFT puts an adapter on top. EXPECT.json is {"tokens": [...],
"logits": [[...], ...]}: logits of the last len(logits) positions. --write makes
such a file from DIR instead of comparing. It is an error if a tensor is
missing or left over, if DIR is of another kind, or if any logit differs by more
than the tolerance. Everything runs in float32 on one CPU thread.
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import bitsandbytes
import peft
import torch
import transformers
from safetensors import safe_open
from transformers import AutoModelForCausalLM


def fail(message):
    sys.exit(f"FAIL  {message}")


def use_default_kernel():
    """bitsandbytes' CPU kernel is wrong where rows are not whole blocks and it has AVX-512: it looks up the absmax by row."""
    op = torch.ops.bitsandbytes.dequantize_4bit.default
    default = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
    lib = torch.library.Library("bitsandbytes", "IMPL")
    lib.impl("dequantize_4bit", lambda *args: op.redispatch(default, *args), "CPU", allow_override=True)
    return lib


def load(path, adapter):
    """(model, kind): kind is "plain", "nf4", "fp4" or "int8"."""
    # compute_dtype travels in the NF4 config; float32 wherever there is a choice.
    model, info = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", device_map="cpu", output_loading_info=True,
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(problem):
            fail(f"{path}: {problem} {sorted(info[problem])[:4]}")
    quantized = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    kinds = {m.weight.quant_state.quant_type for m in quantized}
    kinds |= {"int8" for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear8bitLt)}
    if len(kinds) > 1:
        fail(f"{path}: some weights are {' and some '.join(sorted(kinds))}")
    kind = kinds.pop() if kinds else "plain"
    for module in quantized:
        module.compute_dtype = torch.float32
    if kind == "int8":
        # Its own product rounds the activations to 8 bits too.
        model = model.dequantize(dtype=torch.float32)
    if adapter is not None:
        model = put_adapter(model, adapter)
    model.eval()
    # In eval mode some CPUs get a repacked weight with scales rounded to bf16.
    for module in quantized:
        module.training = True
    return model, kind


def put_adapter(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("error", UserWarning)  # PEFT only warns about missing keys
        try:
            model = peft.PeftModel.from_pretrained(model, path)
        except UserWarning as warning:
            fail(f"{path}: {warning}")
    with safe_open(Path(path, "adapter_model.safetensors"), "pt") as stored:
        extra = set(stored.keys()) ^ set(peft.get_peft_model_state_dict(model))
    if extra:
        fail(f"{path}: tensors that only the file or only the model has: {sorted(extra)[:4]}")
    return model


@torch.no_grad()
def logits_of(model, tokens):
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("expect", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--kind", choices=["plain", "nf4", "fp4", "int8"])
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference of a logit (default %(default)s)")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--tokens", type=lambda s: [int(t) for t in s.split(",")], help="with --write")
    args = parser.parse_args()
    if args.write != (args.tokens is not None):
        parser.error("--write and --tokens go together")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    kernel = use_default_kernel()  # for as long as it lives

    model, kind = load(args.dir, args.adapter)
    if args.kind not in (None, kind):
        fail(f"{args.dir} is {kind}, not {args.kind}")
    name = f"{args.dir.name} ({kind}{', ' + args.adapter.name if args.adapter else ''})"
    if args.write:
        logits = logits_of(model, args.tokens)
        args.expect.write_text(json.dumps({"tokens": args.tokens, "logits": logits.tolist()}))
        print(f"made  {name}")
        return

    expect = json.loads(args.expect.read_text())
    want = torch.tensor(expect["logits"])
    got = logits_of(model, expect["tokens"])[-len(want) :]
    if got.shape != want.shape:
        fail(f"{name}: logits {tuple(got.shape)}, not {tuple(want.shape)}")
    difference = (got - want).abs().max().item()
    if not difference <= args.tolerance:  # NaN fails too
        fail(f"{name}: a logit differs by {difference:.3g}, more than {args.tolerance:.3g}")
    print(f"ok    {name}: logits within {difference:.3g}")


if __name__ == "__main__":
    main()
