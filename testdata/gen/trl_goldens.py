"""What TRL's SFTTrainer makes of rows, and a run of it: what nibble's data and masks must agree with.

    python trl_goldens.py --datasets DATASETS --families testdata/families --stories STORIES_HF --out testdata/trl

DATASETS has gsm8k, mlx-wikisql and llamafactory as downloaded (testdata/README.md says from where). The script writes
small files of their rows, which both sides read, the template that TRL trains Qwen 2.5 with, and goldens.json.
Versions are pinned in requirements-trl.txt.
"""

import argparse
import json
import os
import random
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import common  # first: it sets up torch

import peft
import torch
import trl
from datasets import Dataset
from transformers import AutoTokenizer, LlamaTokenizer, Qwen2ForCausalLM
from trl import SFTConfig, SFTTrainer
from trl.data_utils import pack_dataset

from loss_curves import start_values

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
NO_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:"
)
ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
LENGTH = 200


def jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")


def write_list(path, rows):
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def trainer(model, tokenizer, rows, tmp, **settings):
    config = SFTConfig(
        output_dir=tmp, report_to="none", disable_tqdm=True, use_cpu=True, bf16=False, save_strategy="no",
        **{"max_length": LENGTH, **settings},
    )
    return SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def masked(example):
    """Tokens, and where loss begins and ends in them: pairs of positions."""
    spans, inside = [], False
    for i, label in enumerate(example["labels"]):
        assert label in (-100, example["input_ids"][i])
        if (label != -100) != inside:
            inside = not inside
            spans.append(i)
    if inside:
        spans.append(len(example["labels"]))
    return {"tokens": list(example["input_ids"]), "trained": spans}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=Path, required=True)
    parser.add_argument("--families", type=Path, required=True)
    parser.add_argument("--stories", type=Path, required=True, help="stories260K as a Hugging Face directory")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    qwen = AutoTokenizer.from_pretrained(args.families / "qwen2")
    stories = LlamaTokenizer.from_pretrained(args.stories, legacy=False)
    tokenizers = {"qwen2": qwen, "stories": stories}
    template = (Path(trl.__file__).parent / "chat_templates/qwen2_5_training.jinja").read_text()
    (args.out / "qwen2_5_training.jinja").write_text(template)

    text = jsonl(args.datasets / "mlx-wikisql/train.jsonl")[:12]
    gsm8k = [r for r in jsonl(args.datasets / "gsm8k/train.jsonl") if len(r["question"]) < 220][:12]
    alpaca = [r for r in json.loads((args.datasets / "llamafactory/alpaca_en_demo.json").read_text())
              if len(r["instruction"] + r["input"]) < 60 and len(r["output"]) < 700]
    alpaca = [r for r in alpaca if r["input"]][:4] + [r for r in alpaca if not r["input"]][:4]
    chats = [r for r in json.loads((args.datasets / "llamafactory/glaive_toolcall_en_demo.json").read_text())
             if all(m["from"] in ROLES for m in r["conversations"])]
    tools = [r for r in chats if r["tools"] not in ("", "[]") and len(json.dumps(r)) < 2500][:5]
    sharegpt = [{"conversations": r["conversations"]} for r in chats if len(json.dumps(r["conversations"])) < 1200][:10]
    write_lines(args.out / "wikisql.jsonl", text)
    write_lines(args.out / "gsm8k.jsonl", gsm8k)
    write_list(args.out / "alpaca.json", alpaca)
    write_list(args.out / "sharegpt.json", sharegpt)
    write_list(args.out / "tools.json", tools)
    short = [r for r in json.loads((args.datasets / "llamafactory/alpaca_en_demo.json").read_text())
             if not r["input"] and len(r["instruction"] + r["output"]) < 110][:28]
    # 10 packs: an even number, so that every batch of two is whole.
    short = [{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": r["instruction"]},
                           {"role": "assistant", "content": r["output"]}]} for r in short]
    write_lines(args.out / "short.jsonl", short)

    def messages(r):
        return [{"role": ROLES[m["from"]], "content": m["value"]} for m in r["conversations"]]

    pairs = [{"prompt": r["question"], "completion": r["answer"]} for r in gsm8k]
    turns = [{"prompt": [{"role": "user", "content": r["question"]}], "completion": [{"role": "assistant", "content": r["answer"]}]} for r in gsm8k]
    prompts = [{"prompt": (WITH_INPUT if r["input"] else NO_INPUT).format(**r), "completion": r["output"]} for r in alpaca]
    write_lines(args.out / "turns.jsonl", turns)
    chat = dict(assistant_only_loss=True, chat_template_path=str(args.out / "qwen2_5_training.jinja"))
    long = dict(max_length=1200)
    # Name, tokenizer, file, rows for TRL, settings of TRL, settings of nibble by the names of its flags.
    cases = [
        ("text", "stories", "wikisql.jsonl", text, {}, {}),
        ("text", "qwen2", "wikisql.jsonl", text, {}, {}),
        ("pairs", "stories", "gsm8k.jsonl", pairs, long, {}),
        ("pairs", "qwen2", "gsm8k.jsonl", pairs, long, {}),
        ("pairs without a mask", "qwen2", "gsm8k.jsonl", pairs, dict(completion_only_loss=False), {"mask-prompt": False}),
        ("instructions", "stories", "alpaca.json", prompts, long, {}),
        ("instructions", "qwen2", "alpaca.json", prompts, long, {}),
        ("chats", "qwen2", "sharegpt.json", [{"messages": messages(r)} for r in sharegpt], chat, {"chat-template": "qwen2_5_training.jinja"}),
        ("chats without a mask", "qwen2", "sharegpt.json", [{"messages": messages(r)} for r in sharegpt], {}, {"mask-prompt": False}),
        ("tools", "qwen2", "tools.json", [{"messages": messages(r), "tools": json.dumps(json.loads(r["tools"]))} for r in tools], {**chat, **long},
         {"chat-template": "qwen2_5_training.jinja"}),
        ("prompts that are turns", "qwen2", "turns.jsonl", turns, {**long, "chat_template_path": chat["chat_template_path"]},
         {"chat-template": "qwen2_5_training.jinja"}),
    ]
    made = []
    with tempfile.TemporaryDirectory() as tmp:
        for name, which, file, rows, settings, flags in cases:
            tokenizer = tokenizers[which].__class__.from_pretrained(args.families / "qwen2" if which == "qwen2" else args.stories)
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.unk_token
            model = Qwen2ForCausalLM.from_pretrained(args.families / "qwen2", dtype=torch.float32)
            t = trainer(model, tokenizer, rows, tmp, **settings)
            assert len(t.train_dataset) == len(rows), "TRL left a row out"
            made.append({
                "name": name, "tokenizer": which, "file": file, "max_seq_length": settings.get("max_length", LENGTH), "flags": flags,
                "rows": [masked(e) for e in t.train_dataset],
            })
            print(name, which, len(rows), flush=True)

    # Packing of lengths alone, and of rows.
    rng = random.Random(9)
    packings = []
    for capacity, n in [(8, 5), (16, 40), (64, 300), (100, 17), (2048, 400)]:
        lengths = [min(capacity, 1 + int(rng.expovariate(3 / capacity))) for _ in range(n)]
        packed = pack_dataset(Dataset.from_dict({"ids": [[i] * k for i, k in enumerate(lengths)]}), capacity)
        packs = []
        for ids, sizes in zip(packed["ids"], packed["seq_lengths"]):
            at, docs = 0, []
            for k in sizes:
                docs.append(ids[at])
                assert ids[at : at + k] == [ids[at]] * lengths[ids[at]]
                at += k
            packs.append(docs)
        packings.append({"capacity": capacity, "lengths": lengths, "packs": packs})

    goldens = {
        "versions": {p: version(p) for p in ["trl", "transformers", "torch", "datasets", "tokenizers", "peft", "accelerate"]},
        "cases": made, "packings": packings, "curves": curves(args, short),
    }
    lines = json.dumps(goldens, separators=(",", ":")).replace('{"name"', '\n{"name"').replace('{"tokens"', '\n{"tokens"')
    (args.out / "goldens.json").write_text(lines + "\n", encoding="utf-8")


STEPS = 30
CURVE_LENGTH = 256


class Recorder(SFTTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss, self.losses = 0.0, []

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss.item())
        return loss


def curves(args, rows):
    """LoRA over the small Qwen 2 with TRL, chats in their order over and over, packed and not."""
    out = {}
    for name, packing in [("unpacked", False), ("packed", True)]:
        tokenizer = AutoTokenizer.from_pretrained(args.families / "qwen2")
        model = Qwen2ForCausalLM.from_pretrained(args.families / "qwen2", dtype=torch.float32, attn_implementation="eager")
        model = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"))
        with torch.no_grad():
            for key, p in model.named_parameters():
                if ".lora_A." in key:
                    key = key.removeprefix("base_model.model.").removesuffix(".weight").removesuffix(".default")
                    p.copy_(start_values(key, p.shape))
        with tempfile.TemporaryDirectory() as tmp:
            config = SFTConfig(
                output_dir=tmp, max_steps=STEPS, per_device_train_batch_size=2, learning_rate=1e-2, lr_scheduler_type="cosine",
                warmup_steps=3, weight_decay=0.0, max_grad_norm=1.0, train_sampling_strategy="sequential", save_strategy="no",
                report_to="none", disable_tqdm=True, use_cpu=True, bf16=False, gradient_checkpointing=False,
                max_length=CURVE_LENGTH, packing=packing, assistant_only_loss=True,
                chat_template_path=str(args.out / "qwen2_5_training.jinja"),
            )
            t = Recorder(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
            t.train()
        out[name] = {"examples": len(t.train_dataset), "losses": [float(f"{x:.8g}") for x in t.losses]}
        print(name, len(t.train_dataset), t.losses[0], t.losses[-1], flush=True)
    return out


if __name__ == "__main__":
    main()
