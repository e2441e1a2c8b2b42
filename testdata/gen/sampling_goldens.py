"""What transformers' logits processors make of fixed logits: train/engine/testdata/sampling.json.

    .venv/bin/python testdata/gen/sampling_goldens.py --out train/engine/testdata/sampling.json

The processors run in the order in which GenerationMixin has them: repetition penalty, temperature,
top-k, top-p, min-p. Versions: requirements.txt (transformers 5.23.0, torch 2.15).
"""

import argparse
import itertools
import json

import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


def processors(c):
    out = LogitsProcessorList()
    if c["repetition_penalty"] != 1:
        out.append(RepetitionPenaltyLogitsProcessor(c["repetition_penalty"]))
    if c["temperature"] != 1:
        out.append(TemperatureLogitsWarper(c["temperature"]))
    if c["top_k"]:
        out.append(TopKLogitsWarper(c["top_k"]))
    if c["top_p"] < 1:
        out.append(TopPLogitsWarper(c["top_p"]))
    if c["min_p"]:
        out.append(MinPLogitsWarper(c["min_p"]))
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", required=True)
    args = p.parse_args()
    torch.manual_seed(1)
    inputs = []
    for n, spread in ((7, 1.0), (64, 2.5), (200, 4.0)):
        logits = (torch.randn(n) * spread).round(decimals=4)
        sequence = torch.randint(0, n, (12,)).tolist()
        sequence[3] = int(logits.argmax())
        inputs.append({"logits": [float(x) for x in logits.double()], "sequence": sequence})
    # Of equal logits at the edge of top-k, transformers keeps all.
    inputs.append({"logits": [2.0, 1.0, 1.0, 1.0, -1.0, 0.0], "sequence": [0, 4, 4]})
    cases = []
    for i, x in enumerate(inputs):
        for t, k, tp, mp, rp in itertools.product((0.3, 1.0, 1.7), (0, 2, 20), (0.35, 0.9, 1.0), (0.0, 0.05, 0.4), (1.0, 1.3, 0.8)):
            if i == 3 and tp < 1:
                continue  # which of equals a sort keeps is not defined
            if i != 1 and (t == 1.7) != (rp == 0.8):
                continue
            c = {"input": i, "temperature": t, "top_k": k, "top_p": tp, "min_p": mp, "repetition_penalty": rp}
            scores = processors(c)(torch.tensor([x["sequence"]]), torch.tensor([x["logits"]], dtype=torch.float32))[0]
            probs = torch.softmax(scores.double(), 0)
            kept = [j for j in range(len(scores)) if scores[j] > -float("inf")]
            c["kept"] = kept if len(kept) < 40 else len(kept)
            c["top"] = int(probs.argmax())
            c["p"] = [round(float(probs[j]), 7) for j in kept[:3]]
            cases.append(c)
    with open(args.out, "w") as f:
        f.write('{"inputs": ' + json.dumps(inputs) + ',\n"cases": [\n')
        f.write(",\n".join(json.dumps(c) for c in cases))
        f.write("\n]}\n")


main()
