"""Loss curves of fine-tuning runs of 50 steps: what nibble's trainer must follow.

    python loss_curves.py --llama testdata/llama --stories STORIES_HF --text SHAKESPEARE.TXT --out testdata/curves

transformers' own Trainer with its own optimizers and schedules, PEFT's adapters and
bitsandbytes' 4-bit layers and optimizers, in float32 on one CPU thread. Runs of the
real model are made twice, with transformers' two kinds of attention, to see how far
float32 alone leads two runs apart. The README beside the output's folder explains the files.
Versions are pinned in requirements.txt.
"""

import argparse
import json
import math
import os
import shutil
import tempfile
import warnings
import zlib
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # what bitsandbytes compiles would be compiled for every shape
import common  # first: it sets up torch

import bitsandbytes
import numpy as np
import peft
import torch
import transformers
from peft.optimizers import create_loraplus_optimizer
from transformers import BitsAndBytesConfig, LlamaForCausalLM, LlamaTokenizer, Trainer, TrainingArguments

STEPS = 50

# What stands in one run and not in another. "method" is lora or full; the rest of a
# LoRA run's settings are PEFT's, by its names.
DEFAULTS = dict(
    model="tiny", base="f32", method="lora", r=3, lora_alpha=7, target_modules="all-linear", use_rslora=False, use_dora=False,
    init_lora_weights=True, rank_pattern={}, alpha_pattern={}, layers_to_transform=None, modules_to_save=None, loraplus_lr_ratio=None,
    optimizer="adamw", adam_beta2=0.999, momentum=0.0, learning_rate=1e-2, schedule="cosine", warmup_steps=5, weight_decay=0.0,
    max_grad_norm=1.0, batch_size=4, accumulate=1,
)

METHODS = {
    "lora": dict(),
    "rslora": dict(use_rslora=True, lora_alpha=4),
    "qlora": dict(base="nf4"),
    "dora": dict(use_dora=True),
    "qdora": dict(use_dora=True, base="nf4"),
    "pissa": dict(init_lora_weights="pissa", lora_alpha=3),
    "full": dict(method="full"),
}

# By its name in nibble: what transformers calls it, and a learning rate for adapters and
# one for whole models.
OPTIMIZERS = {
    "adamw": ("adamw_torch", 1e-2, 2e-3),
    "adamw_8bit": ("adamw_8bit", 1e-2, 2e-3),
    "lion": ("lion_32bit", 2e-3, 3e-4),
    "sgd": ("sgd", 1e-1, 3e-2),
    "adafactor": ("adafactor", 1e-2, 2e-3),
}

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def runs():
    """Every run: its name and settings."""
    out = {}

    def add(name, **settings):
        assert name not in out and settings.keys() <= DEFAULTS.keys(), (name, settings)
        out[name] = {**DEFAULTS, **settings}

    # Every method under every optimizer, with the other settings in turn.
    n = 0
    for method, settings in METHODS.items():
        for optimizer, (_, adapter_lr, full_lr) in OPTIMIZERS.items():
            lr = full_lr if method == "full" else adapter_lr
            if optimizer == "sgd" and method in ("dora", "qdora", "pissa"):
                lr /= 5  # larger gradients: of a magnitude for a whole row, of an A beside a B that is not small
            batch, accumulate = [(4, 1), (1, 4), (2, 2)][n % 3]
            add(
                f"{method} {optimizer}", **settings, optimizer=optimizer, learning_rate=lr, schedule=list(SCHEDULES)[n // 2 % 3],
                warmup_steps=[0, 5][n % 2], weight_decay=[0.1, 0.0][n // 3 % 2], max_grad_norm=[1.0, 0.0][n // 5 % 2],
                batch_size=batch, accumulate=accumulate, momentum=0.9 if optimizer == "sgd" else 0.0,
            )
            n += 1
    add("sgd without momentum", optimizer="sgd", learning_rate=0.5, weight_decay=0.1)
    add("lion of the paper", optimizer="lion", learning_rate=2e-3, adam_beta2=0.99, weight_decay=0.1)

    # Every schedule with and without warm-up; the step's examples at once and one by
    # one, which must be the same since a step's loss is a mean over its tokens.
    for schedule in SCHEDULES:
        for warmup in [0, 10]:
            for batch, accumulate in [(4, 1), (1, 4)]:
                add(f"{schedule} {warmup} {batch}x{accumulate}", schedule=schedule, warmup_steps=warmup, batch_size=batch,
                    accumulate=accumulate, weight_decay=0.1)
    for accumulate in [1, 4]:
        add(f"qlora accumulate {accumulate}", base="nf4", batch_size=2, accumulate=accumulate, weight_decay=0.1)
        add(f"full accumulate {accumulate}", method="full", learning_rate=2e-3, batch_size=2, accumulate=accumulate, weight_decay=0.1)

    for method in ["lora", "qlora", "dora", "rslora"]:
        add(f"loraplus {method}", **METHODS[method], loraplus_lr_ratio=16.0, learning_rate=1e-3, weight_decay=0.1, accumulate=2)
    for optimizer in ["adamw_8bit", "sgd", "lion"]:
        add(f"loraplus {optimizer}", loraplus_lr_ratio=16.0, optimizer=optimizer, learning_rate=OPTIMIZERS[optimizer][1] / 8)

    # What an adapter can be of.
    add("patterns", rank_pattern={"q_proj": 5, "down_proj": 1}, alpha_pattern={"q_proj": 3, "layers.1.mlp.up_proj": 11})
    add("one layer", layers_to_transform=[1], target_modules=["q_proj", "v_proj", "up_proj"])
    add("modules_to_save", modules_to_save=["lm_head"], target_modules=["q_proj", "v_proj"], learning_rate=3e-3, weight_decay=0.1)
    add("embeddings", target_modules=["q_proj", "v_proj", "embed_tokens"], weight_decay=0.1)
    add("loraplus embeddings", target_modules=["q_proj", "v_proj", "embed_tokens"], loraplus_lr_ratio=16.0, learning_rate=1e-3)

    # The real model on real text.
    stories = dict(model="stories", r=4, lora_alpha=8, batch_size=2, accumulate=2, weight_decay=0.1)
    for method, schedule in zip(METHODS, ["cosine", "linear", "cosine", "constant", "cosine", "linear", "cosine"]):
        special = {"rslora": dict(lora_alpha=6), "pissa": dict(lora_alpha=4)}.get(method, {})
        add(f"stories {method}", **{**METHODS[method], **stories, **special}, schedule=schedule,
            learning_rate=1e-3 if method in ("full", "pissa") else 5e-3)
    for optimizer, (_, _, lr) in OPTIMIZERS.items():
        if optimizer != "adamw":
            add(f"stories full {optimizer}", **{**stories, "method": "full"}, optimizer=optimizer, learning_rate=lr / 2,
                momentum=0.9 if optimizer == "sgd" else 0.0, schedule="linear")
    # Adapters with matrices of 4096 elements and more, whose state is in 8 bits.
    for method in ["lora", "qlora"]:
        add(f"stories {method} adamw_8bit", **{**METHODS[method], **stories, "r": 64, "lora_alpha": 64}, optimizer="adamw_8bit",
            learning_rate=2e-3, schedule="linear")
    return out


# --- data ------------------------------------------------------------------------


def tiny_examples(vocab):
    """Random tokens, of lengths and label counts that differ: a mean of means would be another loss. One has no label."""
    gen = torch.Generator().manual_seed(77)
    out = []
    for i in range(24):
        n = [3, 19, 7, 12, 5, 23][i % 6] + i % 4
        start = [0, n // 2, 1, n - 2][i % 4]
        out.append({"tokens": torch.randint(vocab, (n,), generator=gen).tolist(), "loss_from": n if i == 9 else start})
    return out


def text_examples(tokenizer, text):
    """Pieces of the text, one after the other, every other one with a prompt that no loss is taken on."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    out, at = [], 0
    for i in range(24):
        n = [9, 30, 14, 41, 22][i % 5]
        out.append({"tokens": [tokenizer.bos_token_id] + ids[at : at + n], "loss_from": [0, 1 + n // 3][i % 2]})
        at += n
    return out


class Examples(torch.utils.data.Dataset):
    """Examples in their order, over and over."""

    def __init__(self, examples, n):
        self.examples, self.n = examples, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.examples[i % len(self.examples)]


def collate(batch):
    longest = max(len(e["tokens"]) for e in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for i, e in enumerate(batch):
        n, start = len(e["tokens"]), e["loss_from"]
        ids[i, :n] = torch.tensor(e["tokens"])
        labels[i, start:n] = ids[i, start:n]
        mask[i, :n] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


# --- models ----------------------------------------------------------------------


def start_values(name, shape):
    """A's values before the first step: uniform in +-1/sqrt(columns), from the parameter's name alone, by SplitMix64."""
    n = math.prod(shape)
    with np.errstate(over="ignore"):
        z = np.uint64(zlib.crc32(name.encode()) << 32) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    unit = (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)
    return torch.from_numpy((unit * np.float32(1 / math.sqrt(shape[1]))).reshape(shape))


def make_model(path, run, attention):
    quantize = {}
    if run["base"] == "nf4":
        quantize = dict(device_map="cpu", quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32,
        ))
    model = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=attention, **quantize)
    if run["method"] == "full":
        return model
    model = peft.get_peft_model(model, peft.LoraConfig(
        **{k: run[k] for k in ("r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "init_lora_weights",
                               "rank_pattern", "alpha_pattern", "layers_to_transform", "modules_to_save")},
        lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
    ))
    if run["init_lora_weights"] is True:
        with torch.no_grad():
            for name, p in model.named_parameters():
                # An embedding's B is what a linear layer's A is: not zero.
                if ".lora_A." in name or ".lora_embedding_B." in name:
                    name = name.removeprefix("base_model.model.").removesuffix(".weight").removesuffix(".default")
                    p.copy_(start_values(name, p.shape))
                assert ".lora_B." not in name and ".lora_embedding_A." not in name or not p.any()
    return model


def use_default_kernels():
    """Takes bitsandbytes' default backend for what its CPU kernels do otherwise than all its other backends.

    Where rows are not whole blocks and it has AVX-512, dequantize_4bit looks up the absmax by
    row. quantize_blockwise does not find the nearest code of small values, but that of a
    coarse grid: it makes 1.6e-5 of every second moment that is 0 beside the greatest.
    """
    lib = torch.library.Library("bitsandbytes", "IMPL")
    default = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
    for name in ("dequantize_4bit", "quantize_blockwise"):
        op = getattr(torch.ops.bitsandbytes, name).default
        lib.impl(name, lambda *args, op=op: op.redispatch(default, *args), "CPU", allow_override=True)
    return lib


# --- training --------------------------------------------------------------------


class Recorder(Trainer):
    """A Trainer that keeps, of each step, the loss before it and the gradient's norm before clipping, unrounded."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss, self.losses, self.norms, self.rates = 0.0, [], [], []

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.loss += loss.item()
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        norm = grad_norm if grad_norm is not None else torch.nn.utils.get_total_norm(grads)
        self.norms.append(float(norm))
        self.losses.append(self.loss)
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.loss = 0.0
        return norm


def train(path, examples, run, attention):
    bitsandbytes.optim.GlobalOptimManager.get_instance().initialize()  # it knows parameters by their address
    model = make_model(path, run, attention)
    with tempfile.TemporaryDirectory() as tmp:
        args = TrainingArguments(
            output_dir=tmp, max_steps=STEPS, per_device_train_batch_size=run["batch_size"],
            gradient_accumulation_steps=run["accumulate"], learning_rate=run["learning_rate"],
            lr_scheduler_type=SCHEDULES[run["schedule"]], warmup_steps=run["warmup_steps"], weight_decay=run["weight_decay"],
            max_grad_norm=run["max_grad_norm"], train_sampling_strategy="sequential", remove_unused_columns=False,
            save_strategy="no", logging_steps=STEPS, report_to="none", disable_tqdm=True, use_cpu=True, bf16=False,
            optim=OPTIMIZERS[run["optimizer"]][0], adam_beta2=run["adam_beta2"],
            optim_args=f"momentum={run['momentum']}" if run["optimizer"] == "sgd" else None,
        )
        optimizers = (None, None)
        if run["loraplus_lr_ratio"] is not None:
            # The class and arguments that the Trainer would take.
            cls, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
            kwargs.pop("lr")
            optimizers = (create_loraplus_optimizer(
                model, cls, lr=run["learning_rate"], loraplus_lr_ratio=run["loraplus_lr_ratio"],
                loraplus_weight_decay=run["weight_decay"], **kwargs), None)
        data = Examples(examples, STEPS * run["batch_size"] * run["accumulate"])
        trainer = Recorder(model=model, args=args, train_dataset=data, data_collator=collate, optimizers=optimizers)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    assert len(trainer.losses) == STEPS
    return trainer


def check_first_loss(path, examples, run, loss):
    """The Trainer's first loss is the mean over the tokens of all micro-batches, by a plain loop over the examples."""
    model = make_model(path, run, "eager").train()
    total, labels = 0.0, 0
    for i in range(run["batch_size"] * run["accumulate"]):
        e = examples[i % len(examples)]
        tokens, start = torch.tensor(e["tokens"]), max(1, e["loss_from"])
        if start < len(tokens):
            with torch.no_grad():
                logits = model(input_ids=tokens[None], use_cache=False).logits[0]
            total += torch.nn.functional.cross_entropy(logits[start - 1 : -1], tokens[start:], reduction="sum").item()
            labels += len(tokens) - start
    assert abs(total / labels - loss) < 1e-5, (total / labels, loss)


def rounded(values):
    """What float32 means and no more."""
    return [float(f"{v:.8g}") for v in values]


def make_run(name, run, path, examples):
    """What runs.json has of one run. noise, of the runs of the real model, is how far apart two kinds of attention lead it."""
    made = train(path, examples, run, "eager")
    check_first_loss(path, examples, run, made.losses[0])
    print(f"{name:32} {made.losses[0]:.4f} -> {made.losses[-1]:.4f}  gradient {min(made.norms):.3f}..{max(made.norms):.3f}", flush=True)
    assert sum(made.losses[-6:]) < sum(made.losses[:6]), "nothing was learnt"  # 24 examples, 4 a step
    out = {
        "settings": run, "losses": rounded(made.losses), "grad_norms": rounded(made.norms), "learning_rates": rounded(made.rates),
    }
    if run["model"] == "stories":
        noise = max(abs(a - b) for a, b in zip(made.losses, train(path, examples, run, "sdpa").losses))
        assert noise < 5e-4, (name, noise)
        out["noise"] = float(f"{noise:.2g}")
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama", type=Path, required=True, help="testdata/llama, for its gqa")
    parser.add_argument("--stories", type=Path, required=True, help="stories260K as a Hugging Face directory")
    parser.add_argument("--text", type=Path, required=True, help="tinyshakespeare, or its beginning")
    parser.add_argument("--only", default="", help="make only the runs whose names have this in them, and print them")
    parser.add_argument("--out", type=Path, help="folder to make, replaced if it exists")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    kernels = use_default_kernels()  # for as long as they live

    models = {"tiny": args.llama / "gqa", "stories": args.stories}
    tokenizer = LlamaTokenizer.from_pretrained(args.stories)
    examples = {
        "tiny": tiny_examples(json.loads((models["tiny"] / "config.json").read_text())["vocab_size"]),
        "stories": text_examples(tokenizer, args.text.read_text()[:4000]),
    }
    out = {}
    for name, run in runs().items():
        if args.only not in name:
            continue
        out[name] = make_run(name, run, models[run["model"]], examples[run["model"]])
    if args.only or args.out is None:
        return
    with tempfile.TemporaryDirectory() as tmp:
        common.write_json(Path(tmp, "examples.json"), examples)
        common.write_json(Path(tmp, "runs.json"), out)
        common.write_json(Path(tmp, "versions.json"), common.versions(
            "torch", "transformers", "peft", "bitsandbytes", "accelerate", "sentencepiece", "numpy"))
        if args.out.exists():
            shutil.rmtree(args.out)
        shutil.copytree(tmp, args.out)


if __name__ == "__main__":
    main()
