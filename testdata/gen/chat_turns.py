"""Conversations that transformers has with small checkpoints: cmd/nibble/testdata/chat/turns.json.

    .venv/bin/python testdata/gen/chat_turns.py --families testdata/families --out cmd/nibble/testdata/chat/turns.json

For each family: messages one after another, each rendered with what came before by apply_chat_template, encoded
without further special tokens unless the tokenizer is told to add a bos and the template has none, answered greedily in float32
without a cache of its own from turn to turn, and decoded without special tokens. Versions: requirements.txt.
"""

import argparse
import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

FAMILIES = ["qwen2", "qwen2moe", "llama", "mistral", "phi3", "gemma2"]
TURNS = ["Hello there", "What is 2 + 2?", "über den Fluß, please"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--families", required=True)
    p.add_argument("--out", required=True)
    args = p.parse_args()
    out = {}
    for family in FAMILIES:
        path = os.path.join(args.families, family)
        tok = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
        with open(os.path.join(path, "tokenizer_config.json")) as f:
            config = json.load(f)
        messages, turns = [], []
        for text in TURNS:
            messages.append({"role": "user", "content": text})
            prompt = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = tok(prompt, add_special_tokens=False)["input_ids"]
            if config.get("add_bos_token") and not prompt.startswith(tok.bos_token):
                ids = [tok.bos_token_id] + ids
            with torch.no_grad():
                full = model.generate(torch.tensor([ids]), do_sample=False, repetition_penalty=1.0, max_new_tokens=12)[0].tolist()
            new = full[len(ids):]
            eos = model.generation_config.eos_token_id
            eos = eos if isinstance(eos, list) else [eos]
            ended = bool(new) and new[-1] in eos
            if ended:
                new = new[:-1]
            answer = tok.decode(new, skip_special_tokens=True)
            turns.append({"user": text, "prompt_tokens": len(ids), "tokens": new, "text": answer, "ended": ended})
            messages.append({"role": "assistant", "content": answer})
        out[family] = turns
    os.makedirs(os.path.dirname(args.out), exist_ok=True)
    with open(args.out, "w") as f:
        json.dump(out, f, indent=1, ensure_ascii=False)
        f.write("\n")


main()
