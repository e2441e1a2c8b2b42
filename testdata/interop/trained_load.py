"""Checks what nibble trained: the model in transformers and PEFT says what it says in nibble.

    python trained_load.py DIR PERPLEXITY.json EVAL.json GENERATE.json [--adapter DIR]

DIR is a Hugging Face directory, --adapter what was trained on top of it, if it was not
DIR itself. PERPLEXITY.json has the tokens of a text, EVAL.json what `nibble eval --json`
says of that text, GENERATE.json what `nibble generate --json` says after some prompt.
The loss must be the same, and of each generated token transformers must think as well as
of the one it likes best. Everything runs in float32 on one CPU thread.
"""

import argparse
import json
from pathlib import Path

import transformers_load  # first: it sets up torch

import torch
import transformers


def text_loss(model, tokens, bos, window):
    """The mean loss by the plain rule: windows that begin with bos, every other token scored."""
    total = 0.0
    for at in range(0, len(tokens), window - 1):
        ids = [bos] + tokens[at : at + window - 1]
        logits = transformers_load.logits_of(model, ids).double()
        total += torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum").item()
    return total / len(tokens)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("perplexity", type=Path)
    parser.add_argument("eval", type=Path)
    parser.add_argument("generate", type=Path)
    parser.add_argument("--adapter", type=Path)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    kernel = transformers_load.use_default_kernel()  # for as long as it lives

    model, kind = transformers_load.load(args.dir, args.adapter)
    trained = args.adapter or args.dir
    name = f"{trained.name} ({kind})"
    tokens = json.loads(args.perplexity.read_text())["tokens_without_bos"]
    said = json.loads(args.eval.read_text())
    if said["tokens"] != len(tokens):
        transformers_load.fail(f"{name}: {said['tokens']} tokens, not {len(tokens)}")
    loss = text_loss(model, tokens, model.config.bos_token_id, said["max_seq_length"])
    if not abs(loss - said["loss"]) <= 1e-5:  # NaN fails too
        transformers_load.fail(f"{name}: the loss is {loss:.6f}, {said['loss']:.6f} in nibble")

    text = json.loads(args.generate.read_text())
    prompt, new = text["prompt_tokens"], text["tokens"]
    logits = transformers_load.logits_of(model, prompt + new)[len(prompt) - 1 : -1]
    behind = (logits.max(-1).values - logits[torch.arange(len(new)), torch.tensor(new)]).max().item()
    if not behind <= 1e-4:
        transformers_load.fail(f"{name}: a token that nibble generates is {behind:.3g} behind the best")
    print(f"ok    {name}: loss {loss:.6f} within {abs(loss - said['loss']):.1g}, {len(new)} tokens alike")


if __name__ == "__main__":
    main()
