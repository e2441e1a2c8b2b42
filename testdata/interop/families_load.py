"""Loads what became of checkpoints in transformers, beside the checkpoints.

    python families_load.py ORIGINALS CONVERTED [--loses NAME=WHAT ...]

CONVERTED has a directory of the same name for each of ORIGINALS: the checkpoint
after it has been a GGUF file. Weights, logits, tokens of some texts and their text,
special tokens and the chat template must be the same. --loses says of a family what
no GGUF file holds: "class", "logits" or "tokens". Their tokens are then those of llama.cpp, which `make interop`
compares.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = [
    "Once upon a time", "  Two spaces  here,\tand a tab.\n\nThe dog", "Zoë ate 12 crêpes at the café 😀 and", "", " ", "a", "\n",
    "First Citizen:\nBefore we proceed any further, hear me speak.", "It's 3,14159 o'clock; they'LL say \"we've\"…", "日本語 текст \u00a0 nbsp",
    "def f(x):\n    return x ** 2  # comment\n\n\n", "<s>[INST] hello [/INST]</s>", "<|im_start|>user\nhello<|im_end|>\n",
]
MESSAGES = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Why?"}]


def model_of(path):
    model, info = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    problems = [f"{k} {sorted(v)[:3]}" for k, v in info.items() if v]
    return model.eval(), problems


def weights(model):
    """Parameters by name, the text model's own where it is a part of more."""
    out = {}
    for name, p in model.named_parameters():
        if "vision" in name or "multi_modal" in name:
            continue
        out[name.replace("model.language_model.", "model.")] = p
    return out


@torch.no_grad()
def logits_of(model, tokens):
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()


def compare(original, converted, loses):
    a, problems = model_of(original)
    if problems:
        return [f"the original: {p}" for p in problems]
    b, problems = model_of(converted)
    if "class" not in loses and type(a.get_decoder() if hasattr(a, "get_decoder") else a) is not type(b.get_decoder() if hasattr(b, "get_decoder") else b):
        problems.append(f"{type(a).__name__} became {type(b).__name__}")
    wa, wb = weights(a), weights(b)
    if wa.keys() != wb.keys():
        problems.append(f"weights of one only: {sorted(wa.keys() ^ wb.keys())[:4]}")
    problems += [f"{n} differs" for n in wa.keys() & wb.keys() if not torch.equal(wa[n], wb[n])]
    gen = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 500, (24,), generator=gen).tolist()
    if "logits" not in loses:
        difference = (logits_of(a, tokens) - logits_of(b, tokens)).abs().max().item()
        if not difference <= 1e-5:
            problems.append(f"a logit differs by {difference:.3g}")

    ta, tb = AutoTokenizer.from_pretrained(original), AutoTokenizer.from_pretrained(converted)
    for text in TEXTS if "tokens" not in loses else []:
        x, y = ta(text).input_ids, tb(text).input_ids
        if x != y:
            problems.append(f"{text!r} is {x}, became {y}")
        x, y = (t.decode(x, clean_up_tokenization_spaces=False) for t in (ta, tb))
        if x != y:
            problems.append(f"{text!r} decodes to {x!r}, and now to {y!r}")
    for name in ("bos_token", "eos_token", "pad_token"):
        if getattr(ta, name) not in (None, getattr(tb, name)):
            problems.append(f"{name} {getattr(ta, name)!r} became {getattr(tb, name)!r}")
    if ta.chat_template:
        x, y = (t.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True) for t in (ta, tb))
        if x != y:
            problems.append(f"a chat {x!r} became {y!r}")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("originals", type=Path)
    parser.add_argument("converted", type=Path)
    parser.add_argument("--loses", action="append", default=[], metavar="NAME=WHAT")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    loses = {}
    for entry in args.loses:
        name, what = entry.split("=")
        loses.setdefault(name, set()).add(what)
    failed = False
    for converted in sorted(p for p in args.converted.iterdir() if p.is_dir()):
        lost = loses.get(converted.name, set())
        problems = compare(args.originals / converted.name, converted, lost)
        print(f"{'FAIL' if problems else 'ok  '}  {converted.name} after GGUF{', without ' + ', '.join(sorted(lost)) if lost else ''}")
        for p in problems:
            print(f"        {p}")
        failed = failed or bool(problems)
    sys.exit(failed)


if __name__ == "__main__":
    main()
