"""Losses and gradients of the families, of full fine-tuning and of LoRA on every linear layer, by PyTorch and PEFT.

    python family_grads.py --out testdata/families
    python family_grads.py --out testdata/families --compare

Run families.py first. Writes grads.json and grads.safetensors beside each checkpoint. Runs under the versions of
requirements-converter.txt, whose experts are linear layers with the checkpoint's names. With `--compare` nothing is
written, and every difference from what is there is printed: for transformers 5, the experts of which are joined (so
it leaves LoRA on them out).
"""

import argparse
import json
import re
from pathlib import Path

import common as shared  # first: it sets up torch

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D

# The sequences of each micro-batch: their tokens, and the first token that is predicted. Most are far longer than the
# windows of 8; in phi4-mini the first micro-batch takes the long factors, the second the short ones.
MICRO_BATCHES = [[(40, 0), (17, 6)], [(2, 0), (23, 15), (29, 0)]]
RANK, ALPHA = 3, 4
SMALLEST_ROUTER_LEAD = 1e-3


# ---- Numbers that a test can make again: uniform in [-1, 1), 24 bits of them, from a name and an index

def uniform(name, n):
    h = 0xCBF29CE484222325  # FNV-1a
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    z = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # splitmix64
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def tensor_of(name, shape, scale):
    return torch.from_numpy(uniform(name, int(np.prod(shape))) * scale).float().reshape(tuple(shape))


# ---- The model

def load(path):
    config = AutoConfig.from_pretrained(path)
    model_class = getattr(transformers, config.architectures[0])
    more = {"experts_implementation": "eager"} if transformers.__version__ >= "5" else {}
    model = model_class.from_pretrained(path, dtype=torch.float32, attn_implementation="eager", **more).eval()
    # PyTorch gives the embedding of the padding token no gradient, which in phi4-mini is the beginning of a text too.
    model.get_input_embeddings().padding_idx = None
    return model


def plain(name):
    """The checkpoint's name for a parameter of the text model."""
    name = name.removeprefix("base_model.model.").replace(".default.", ".").replace(".base_layer.", ".")
    name = name.replace("language_model.model.", "model.").replace("model.language_model.", "model.")
    return name.replace("language_model.lm_head", "lm_head")


def text_modules(model):
    """The linear layers in the blocks of the text model: what PEFT's all-linear takes of it."""
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, Conv1D)) and re.search(r"\.(layers|h)\.\d+\.", name) and "vision" not in name:
            yield name


def with_lora(model):
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=list(text_modules(model)), bias="none",
                        fan_in_fan_out=isinstance(model, transformers.GPT2LMHeadModel))
    model = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(tensor_of(plain(name), p.shape, 0.5 if "lora_A" in name else 0.25))
    return model


# ---- Loss and gradients

def tokens_of(seed, bos):
    gen = torch.Generator().manual_seed(seed)
    return [[([bos, *torch.randint(3, 500, (n - 1,), generator=gen).tolist()], start) for n, start in micro] for micro in MICRO_BATCHES]


def micro_loss(model, micro):
    """The sum of the losses of a micro-batch, padded on the right as trainers do it."""
    longest = max(len(tokens) for tokens, _ in micro)
    ids = torch.zeros(len(micro), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (tokens, start) in enumerate(micro):
        ids[i, :len(tokens)] = torch.tensor(tokens)
        mask[i, :len(tokens)] = 1
        labels[i, max(1, start):len(tokens)] = torch.tensor(tokens[max(1, start):])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


def labels_of(micro):
    return sum(len(tokens) - max(1, start) for tokens, start in micro)


def gradients(model, batch):
    """The micro-batches' losses, and the gradient of the mean over all labels of each parameter by its name."""
    labels = sum(map(labels_of, batch))
    model.zero_grad(set_to_none=True)
    sums = []
    for micro in batch:
        loss = micro_loss(model, micro)
        (loss / labels).backward()
        sums.append(loss.item())
    grads = {}
    for name, p in model.named_parameters():
        if not p.requires_grad or "vision" in name or "multi_modal" in name:
            continue
        grad = torch.zeros_like(p) if p.grad is None else p.grad
        for part, g in split_experts(plain(name), grad, model.config):
            grads[part] = g
    return sums, grads


def split_experts(name, grad, config):
    """transformers 5 joins experts, and their gate and up, and calls Mixtral's mixture mlp: undone."""
    if config.model_type == "mixtral":
        name = name.replace(".mlp.", ".block_sparse_moe.")
    m = re.fullmatch(r"(.*)\.experts\.(gate_up_proj|down_proj)", name)
    if m is None:
        yield name, grad
        return
    names = ("gate_proj", "up_proj", "down_proj")
    prefix = m[1] + ".experts"
    if config.model_type == "mixtral":
        names = ("w1", "w3", "w2")
    for e, g in enumerate(grad):
        if m[2] == "down_proj":
            yield f"{prefix}.{e}.{names[2]}.weight", g
            continue
        for part, half in zip(names, g.chunk(2)):
            yield f"{prefix}.{e}.{part}.weight", half


def router_lead(path, batch):
    """How close the chosen experts are to the next one, at the closest."""
    model, leads = load(path), [1e9]

    def hook(module, args, out):
        scores = F.linear(args[0].reshape(-1, args[0].shape[-1]), module.weight).sort(-1, descending=True).values
        k = model.config.num_experts_per_tok
        leads.append((scores[:, k - 1] - scores[:, k]).min().item())
    for name, module in model.named_modules():
        if name.endswith((".mlp.gate", ".block_sparse_moe.gate")):
            module.register_forward_hook(hook)
    with torch.no_grad():
        for micro in batch:
            micro_loss(model, micro)
    return min(leads)


class Float64:
    """Takes transformers' casts to float32 out, so that a model computes in float64, its rotary tables too."""

    def __enter__(self):
        self.old = torch.float32, torch.Tensor.float
        torch.float32, torch.Tensor.float = torch.float64, torch.Tensor.double

    def __exit__(self, *args):
        torch.float32, torch.Tensor.float = self.old


def small(name, grad):
    """The gradients that are kept whole: of the first block and the last norm, where they are small."""
    return grad.numel() <= 160 and (re.search(r"\.(layers|h)\.0\.", name) or re.search(r"(model\.norm|ln_f)\.", name))


def summary(grads):
    """The norm of each gradient, and its product with the numbers of its name."""
    out = {}
    for name, g in sorted(grads.items()):
        flat = g.detach().double().numpy().reshape(-1)
        out[name] = [float(f"{np.linalg.norm(flat):.9g}"), float(f"{flat @ uniform(name, flat.size):.9g}")]
    return out


def distance(one, other):
    """The largest difference of two gradients of one parameter, as a share of the norm of the second."""
    return max(((one[n].double() - g.double()).norm() / (g.double().norm() + 1e-30)).item() for n, g in other.items())


def golden(path):
    config = AutoConfig.from_pretrained(path).get_text_config()
    sparse = getattr(config, "num_experts_per_tok", None)
    seed = 2
    while sparse and router_lead(path, tokens_of(seed, config.bos_token_id)) < SMALLEST_ROUTER_LEAD:
        seed += 1
    batch = tokens_of(seed, config.bos_token_id)
    result, whole = {"micro_batches": [[{"tokens": t, "loss_from": s} for t, s in micro] for micro in batch]}, {}
    for kind in ("full", "lora"):
        model = load(path)
        if kind == "lora":
            model = with_lora(model)
        sums, grads = gradients(model, batch)
        with Float64():
            exact_sums, exact = gradients(model.double(), batch)
        error = distance(grads, exact)
        assert error < 2e-5, (path, kind, error)
        whole.update({n: g.detach().float().contiguous() for n, g in exact.items() if small(n, g)})
        result[kind] = {"loss_sums": exact_sums, "float32_error": float(f"{error:.2g}"), "gradients": summary(exact)}
        if kind == "lora":
            result[kind] |= {"rank": RANK, "alpha": ALPHA}
        print(path.name, kind, f"{len(grads)} gradients, float32 is {error:.1e} off, losses {max(abs(a - b) for a, b in zip(sums, exact_sums)):.1e}", flush=True)
    return result, whole


def write(path, result):
    """JSON with one line for each gradient."""
    def dump(value, depth):
        if isinstance(value, dict) and depth < 3:
            pad = " " * (depth + 1)
            return "{\n" + ",\n".join(f"{pad}{json.dumps(k)}: {dump(v, depth + 1)}" for k, v in value.items()) + "\n" + " " * depth + "}"
        return json.dumps(value, separators=(",", ":"))
    path.write_text(dump(result, 0) + "\n")
    path.chmod(0o644)


def compare(path):
    want = json.loads((path / "grads.json").read_text())
    whole = load_file(path / "grads.safetensors")
    batch = [[(s["tokens"], s["loss_from"]) for s in micro] for micro in want["micro_batches"]]
    for kind in ("full", "lora"):
        model = load(path)
        if kind == "lora":
            if transformers.__version__ >= "5" and any("experts" in name for name, _ in model.named_parameters()):
                continue
            model = with_lora(model)
        sums, grads = gradients(model, batch)
        names = want[kind]["gradients"]
        missing, got, worst = set(names) - set(grads), summary(grads), 0
        for name in names.keys() & grads.keys():
            worst = max(worst, *(abs(a - b) / (names[name][0] + 1e-30) for a, b in zip(names[name], got[name])))
            if name in whole:
                worst = max(worst, ((whole[name] - grads[name]).norm() / whole[name].norm()).item())
        loss = max(abs(a / b - 1) for a, b in zip(sums, want[kind]["loss_sums"]))
        print(f"{path.name} {kind}: gradients differ by {worst:.1e} of their norm, losses by {loss:.1e};",
              f"{len(missing)} of {len(names)} are not there", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="testdata/families")
    parser.add_argument("--only", nargs="*", help="these families alone")
    parser.add_argument("--compare", action="store_true")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for path in sorted(p.parent for p in args.out.glob("*/config.json")):
        if args.only and path.name not in args.only:
            continue
        if args.compare:
            compare(path)
            continue
        result, whole = golden(path)
        write(path / "grads.json", {**shared.versions("torch", "transformers", "peft"), **result})
        save_file(whole, path / "grads.safetensors")
        (path / "grads.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
