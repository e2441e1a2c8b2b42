"""Goldens for the methods of the trainer: loss and every gradient of one step under PEFT.

    python peft_methods.py --llama testdata/llama --families testdata/families --out testdata/methods

Each folder is a case over one of the tiny models of llama_grads.py, or of families/: the
adapter as PEFT saves it, the settings it was made with, the loss and the gradients. What
starts as zero is moved away from it, and so is DoRA's magnitude. Dropout is PEFT's own
code with nibble's mask in place of torch's. Versions are pinned in requirements.txt.
"""

import argparse
import json
import shutil
import tempfile
import warnings
from pathlib import Path

import common  # first: it sets up torch

import numpy as np
import peft
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KEY = 77  # of the dropout, plus the number of the micro-batch

# Name: model, settings of LoraConfig.
CASES = {
    "dora": ("gqa", dict(r=3, lora_alpha=7, target_modules=SEVEN, use_dora=True)),
    "dora_dropout": ("gqa", dict(r=2, lora_alpha=4, target_modules=["q_proj", "o_proj", "down_proj"], use_dora=True, lora_dropout=0.3)),
    "dora_bias": ("bias_llama3", dict(r=2, lora_alpha=3, target_modules=["v_proj", "up_proj"], use_dora=True, use_rslora=True)),
    "dora_conv1d": ("gpt2", dict(r=2, lora_alpha=3, target_modules=["c_attn", "c_proj"], use_dora=True, fan_in_fan_out=True)),
    "dropout": ("gqa", dict(r=2, lora_alpha=4, target_modules=["k_proj", "gate_proj"], lora_dropout=0.4)),
    "patterns": ("gqa", dict(
        r=3, lora_alpha=5, target_modules=r".*\.(?:q_proj|down_proj|up_proj)", exclude_modules=["layers.1.mlp.up_proj"], use_rslora=True,
        rank_pattern={"down_proj": 2, r"^model\.layers\.0\.self_attn\.[qk]_proj": 1}, alpha_pattern={"up_proj": 9, "mlp.down_proj": 2})),
    "layers": ("mha_tied", dict(r=2, lora_alpha=3, target_modules=["q_proj", "up_proj", "model.layers.0.mlp.down_proj"], layers_to_transform=[1, 2])),
    "saved": ("bias_llama3", dict(r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"], modules_to_save=["model.norm", "input_layernorm", "lm_head", "k_proj"])),
    "bias_all": ("bias_llama3", dict(r=2, lora_alpha=3, target_modules=["q_proj", "up_proj"], bias="all")),
    "bias_lora_only": ("bias_llama3", dict(r=2, lora_alpha=3, target_modules=["q_proj", "up_proj"], bias="lora_only")),
    "embedding": ("gqa", dict(r=3, lora_alpha=4, target_modules=["embed_tokens", "v_proj"])),
    "embedding_tied": ("mha_tied", dict(r=3, lora_alpha=4, target_modules=["embed_tokens", "v_proj"])),
    "embedding_scaled": ("gemma", dict(r=2, lora_alpha=4, target_modules=["embed_tokens", "o_proj"])),
    "saved_tied": ("mha_tied", dict(r=2, lora_alpha=3, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
    "pissa": ("gqa", dict(r=3, lora_alpha=7, target_modules=["q_proj", "down_proj", "v_proj"], init_lora_weights="pissa")),
    "pissa_rslora": ("gqa", dict(r=2, lora_alpha=3, target_modules=["k_proj"], use_rslora=True, init_lora_weights="pissa")),
}

MASK = np.uint64(2**64 - 1)


def mix(z):
    """splitmix64's output function."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def name_hash(name):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = (h ^ b) * 0x100000001B3 % 2**64
    return h


class Masked(torch.nn.Module):
    """nibble's dropout: by a hash of the key, the adapter and the element of the micro-batch."""

    key, row = 0, 0  # of the present micro-batch and its present sequence

    def __init__(self, name, p):
        super().__init__()
        self.name, self.p = name, p

    def forward(self, x):
        with np.errstate(over="ignore"):
            seed = mix(np.array([Masked.key ^ name_hash(self.name)], dtype=np.uint64))
            at = np.arange(x[0].numel(), dtype=np.uint64) + np.uint64(Masked.row * x.shape[-1])
            keep = (mix(seed + at) >> np.uint64(11)) >= np.uint64(int(np.float64(np.float32(self.p)) * 2**53))
        factor = np.float32(1) / (np.float32(1) - np.float32(self.p))
        return x * (torch.from_numpy(keep.reshape(x.shape[1:]))[None] * torch.tensor(factor))


def load(path):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    model.name_or_path = model.config._name_or_path = ""
    return model


def sequence_loss(model, seq):
    tokens = torch.tensor(seq["tokens"])
    start = max(1, seq["loss_from"])
    logits = model(input_ids=tokens[None], use_cache=False).logits[0]
    if start >= len(tokens):
        return 0.0 * logits.sum(), 0
    return F.cross_entropy(logits[start - 1 : -1], tokens[start:], reduction="sum"), len(tokens) - start


def run(model, batch):
    total = sum(max(0, len(s["tokens"]) - max(1, s["loss_from"])) for micro in batch for s in micro)
    model.zero_grad(set_to_none=True)
    sums = []
    for k, micro in enumerate(batch):
        Masked.key, Masked.row = KEY + k, 0
        sums.append(0.0)
        for seq in micro:
            loss, _ = sequence_loss(model, seq)
            (loss / total).backward()
            sums[-1] += loss.item()
            Masked.row += len(seq["tokens"]) - 1  # the last token is only ever a label
    return {"loss_sums": sums, "labels": total}


def saved_names(model):
    """The parameters that are trained by the names in the file."""
    plain = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            plain[name.replace(".default", "").replace(".modules_to_save", "").replace("lora_magnitude_vector.weight", "lora_magnitude_vector")] = p
    return plain


def move(model, seed):
    """Moves what begins as zero, or where the gradient is, away from there."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(saved_names(model).items()):
            noise = torch.randn(p.shape, generator=gen)
            if "lora_B" in name or "lora_embedding_A" in name:
                p.add_(0.15 * noise)
            elif "magnitude" in name:
                p.mul_(1 + 0.2 * noise)
            elif "lora_A" in name:
                p.add_(0.05 * noise)
            elif "lora" not in name:
                p.add_(0.02 * noise)


def save(model, path, **kwargs):
    model.save_pretrained(path, **kwargs)
    (path / "README.md").unlink(missing_ok=True)
    config_path = path / "adapter_config.json"
    config = json.loads(config_path.read_text())
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config[key], list):
            config[key] = sorted(config[key])
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True))


def case(name, base, batch, settings, out):
    torch.manual_seed(name_hash(name) % 2**31)
    model = peft.get_peft_model(load(base), peft.LoraConfig(**settings, task_type="CAUSAL_LM"))
    initial = settings.get("init_lora_weights")
    if initial:
        save(model, out / "initial")
        # What PEFT wants as the initial model is one that it does not change the base for.
        config_path = out / "initial" / "adapter_config.json"
        untouched = config_path.read_text()
    move(model, name_hash(name) % 2**31 + 1)
    if settings.get("lora_dropout"):
        for module_name, module in list(model.named_modules()):
            if module_name.endswith("lora_dropout"):
                plain = module_name.removeprefix("base_model.model.").removesuffix(".lora_dropout")
                module["default"] = Masked(plain + ".lora_A.weight", settings["lora_dropout"])
        model.train()
    else:
        model.eval()
    expect = run(model, batch)
    grads = {n: p.grad.clone() for n, p in saved_names(model).items()}
    assert all(g.abs().max() > 0 for g in grads.values()), {n: g.abs().max() for n, g in grads.items()}
    save(model, out / "adapter")
    save_file(grads, out / "grads.safetensors")
    if initial:
        save(model, out / "converted", path_initial_model_for_weight_conversion=str(out / "initial"))
        config_path.write_text(untouched)
        again = peft.PeftModel.from_pretrained(load(base), out / "converted").eval()
        assert abs(sum(run_plain(again, batch)) - sum(expect["loss_sums"])) < 1e-3
    elif not settings.get("lora_dropout"):
        again = peft.PeftModel.from_pretrained(load(base), out / "adapter").eval()
        assert abs(sum(run_plain(again, batch)) - sum(expect["loss_sums"])) < 1e-3, name
    return {"model": base.name, "key": KEY, "settings": settings, **expect}


@torch.no_grad()
def run_plain(model, batch):
    return [sum(sequence_loss(model, seq)[0].item() for seq in micro) for micro in batch]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama", type=Path, required=True)
    parser.add_argument("--families", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder to make, replaced if it exists")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as tmp:
        expect = {}
        for name, (model, settings) in CASES.items():
            base = args.llama / model
            if base.exists():
                batch = json.loads((base / "batch.json").read_text())["micro_batches"]
            else:
                base = args.families / model
                batch = [[{"tokens": [5, 17, 42, 3, 99, 7], "loss_from": 0}, {"tokens": [8, 1, 60, 22], "loss_from": 2}]]
            expect[name] = case(name, base, batch, settings, Path(tmp, name)) | {"batch": batch}
            print(name, "done")
        common.write_json(Path(tmp, "expect.json"), expect)
        common.write_json(Path(tmp, "versions.json"), common.versions("torch", "transformers", "peft", "safetensors", "numpy"))
        if args.out.exists():
            shutil.rmtree(args.out)
        shutil.copytree(tmp, args.out)


if __name__ == "__main__":
    main()
