"""How far stories260K in Q8_0 is from stories260K, by transformers and by the real llama-perplexity --kl-divergence.

    python kl_goldens.py --tool LLAMA_PERPLEXITY --nibble NIBBLE --stories STORIES_HF --testdata testdata \
        --out cmd/nibble/testdata/kl/stories_q8_0.json

The weights are those that gguf-py's Q8_0 decodes to, and F16 where 32 does not divide the rows, as the converter has it.
transformers computes logits in float32, the figures are float64. llama-perplexity runs on F32 files (the second one made
by nibble from the Q8_0 file), with an F32 cache and no flash attention; its own Q8_0 arithmetic also rounds what the
weights are multiplied with, and it stores the base's logits in 16 bits, which is why its perplexity of the base is off.
Needs what is in requirements.txt.
"""

import argparse
import math
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import common  # first: it sets up torch

import gguf
import numpy as np
import torch

from stories_goldens import load

N_CTX = 128
TEXT = "shakespeare.txt"


def rounded(p):
    """The weight after Q8_0, or F16."""
    values = p.detach().numpy()
    if values.shape[1] % 32:
        return torch.from_numpy(values.astype(np.float16).astype(np.float32))
    kind = gguf.GGMLQuantizationType.Q8_0
    return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind))


@torch.no_grad()
def log_probs(model, chunks):
    first = N_CTX // 2
    return torch.cat([torch.log_softmax(model(torch.tensor([c]), use_cache=False).logits[0, first:-1].double(), -1) for c in chunks])


def mean(values):
    n = len(values)
    m = values.mean().item()
    return {"value": m, "uncertainty": math.sqrt(max(0.0, (values**2).mean().item() - m * m) / (n - 1))}


def by_transformers(stories, text):
    model, sp = load(stories)
    tokens = [sp.bos_id()] + sp.encode(text)
    chunks = [[sp.bos_id()] + tokens[i + 1 : i + N_CTX] for i in range(0, len(tokens) - N_CTX + 1, N_CTX)]
    labels = torch.tensor([t for c in chunks for t in c[N_CTX // 2 + 1 :]])
    base = log_probs(model, chunks)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.copy_(rounded(p))
    own = log_probs(model, chunks)
    kl = (base.exp() * (base - own)).sum(-1)
    nll, nll_base = (-x.gather(1, labels[:, None])[:, 0] for x in (own, base))
    same = (own.argmax(-1) == base.argmax(-1)).double()
    square = mean(((-nll).exp() - (-nll_base).exp()) ** 2)
    rms = math.sqrt(square["value"])
    return {
        "tokens": len(labels), "loss": mean(nll), "base_loss": mean(nll_base), "log_perplexity_ratio": mean(nll - nll_base),
        "mean": mean(kl), "median": kl.quantile(0.5).item(), "p99": kl.quantile(0.99).item(), "max": kl.max().item(),
        "same_top": {"value": same.mean().item(), "uncertainty": math.sqrt(same.mean() * (1 - same.mean()) / (len(same) - 1))},
        "rms_delta_p": {"value": rms, "uncertainty": square["uncertainty"] / (2 * rms)},
    }


def by_llamacpp(tool, nibble, stories, text, work):
    def run(*args):
        return subprocess.run([str(a) for a in args], cwd=work, capture_output=True, text=True, check=True)

    for out, *args in [("base.gguf", stories, "f32"), ("q8.gguf", stories, "q8_0")]:
        run(nibble, "convert", args[0], out, "--outtype", args[1])
    run(nibble, "dequantize", "q8.gguf", "q8", "--dtype", "f32")
    run(nibble, "convert", "q8", "own.gguf", "--outtype", "f32")
    shutil.copy(text, work / TEXT)
    flags = ["-f", TEXT, "-c", N_CTX, "-t", 1, "-ctk", "f32", "-ctv", "f32", "-fa", "off", "--kl-divergence-base", "base.kld"]
    run(tool, "-m", "base.gguf", *flags)
    for _ in range(5):  # its logging thread may be cut off at the end
        done = run(tool, "-m", "own.gguf", *flags, "--kl-divergence")
        log = done.stdout + done.stderr
        if "Same top p:" in log:
            break

    def figures(pattern):
        return [float(x) for x in re.search(pattern, log).groups()]

    number = r"\s*(-?[\d.]+)"
    perplexity, kl = figures(rf"Mean PPL\(Q\)\s*:{number} ±{number}"), figures(rf"Mean    KLD:{number} ±{number}")
    top, rms = figures(rf"Same top p:{number} ±{number} %"), figures(rf"RMS Δp    :{number} ±{number} %")
    return {
        "perplexity": perplexity, "mean": kl, "max": figures(rf"Maximum KLD:{number}")[0], "p99": figures(rf"99.0%   KLD:{number}")[0],
        "median": figures(rf"Median  KLD:{number}")[0], "same_top_percent": top, "rms_delta_p_percent": rms,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, required=True, help="llama-perplexity of v0.5.0")
    parser.add_argument("--nibble", type=Path, required=True)
    parser.add_argument("--stories", type=Path, required=True, help="the Hugging Face directory of stories260K")
    parser.add_argument("--testdata", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    text = args.testdata / "stories260K" / TEXT
    with tempfile.TemporaryDirectory() as work:
        llamacpp = by_llamacpp(args.tool.resolve(), args.nibble.resolve(), args.stories.resolve(), text, Path(work))
    common.write_json(args.out, {
        "made_by": {"llama.cpp": "v0.5.0", **common.versions("torch", "transformers", "sentencepiece", "gguf")},
        "n_ctx": N_CTX, "transformers": by_transformers(args.stories, text.read_text()), "llama_perplexity": llamacpp,
    })


if __name__ == "__main__":
    main()
