"""Goldens for the trainer: losses, gradients and training runs of tiny Llama models.

    python llama_grads.py --out testdata/llama

transformers' LlamaForCausalLM (eager attention), PEFT's LoRA and bitsandbytes'
NF4, in float32 on one CPU thread. The README beside the output explains every
file. Versions are pinned in requirements.txt.
"""

import argparse
import contextlib
import json
import math
import shutil
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import common  # first: it sets up torch

import bitsandbytes.functional as bnb
import numpy as np
import peft
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# Every model: its configuration and, for each sequence of each micro-batch,
# (number of tokens, loss_from).
MODELS = {
    "gqa": {
        "seed": 101,
        "config": dict(
            hidden_size=24, num_attention_heads=4, num_key_value_heads=2, head_dim=6, intermediate_size=20,
            vocab_size=37, num_hidden_layers=2, tie_word_embeddings=False, rope_theta=10000.0, rms_norm_eps=1e-5,
            max_position_embeddings=64,
        ),
        "batch": [[(7, 0), (11, 4)], [(5, 2), (13, 1), (1, 0)]],
    },
    "mha_tied": {
        "seed": 202,
        "config": dict(
            hidden_size=16, num_attention_heads=2, num_key_value_heads=2, head_dim=8, intermediate_size=23,
            vocab_size=29, num_hidden_layers=3, tie_word_embeddings=True, rope_theta=10000.0, rms_norm_eps=1e-6,
            max_position_embeddings=64,
        ),
        "batch": [[(9, 3), (4, 0)], [(6, 6), (2, 1), (12, 11)]],
    },
    "bias_llama3": {
        "seed": 303,
        # Three rotary frequencies: 1 (kept), 0.215 (blended: wavelength 29 of 64)
        # and 0.046 (divided by 8: wavelength 135).
        "config": dict(
            hidden_size=30, num_attention_heads=5, num_key_value_heads=1, head_dim=6, intermediate_size=12,
            vocab_size=31, num_hidden_layers=2, tie_word_embeddings=False, rope_theta=100.0, rms_norm_eps=1e-5,
            max_position_embeddings=512, attention_bias=True, mlp_bias=True,
            rope_scaling=dict(
                rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=64,
            ),
        ),
        "batch": [[(70, 5), (8, 0)], [(10, 3)]],
    },
}

# Adapter name: its LoRA settings and the models that get it.
ADAPTERS = {
    "r3": (dict(r=3, lora_alpha=7, target_modules=SEVEN, use_rslora=False), {"gqa", "mha_tied", "bias_llama3"}),
    "r1_rslora": (dict(r=1, lora_alpha=2, target_modules=["q_proj", "v_proj"], use_rslora=True), {"gqa"}),
}


# --- models, batches, adapters ---------------------------------------------------


def make_model(spec):
    """A model with random weights that matter: peaked attention, norms away from 1, biases away from 0."""
    gen = torch.Generator().manual_seed(spec["seed"])
    config = LlamaConfig(
        **spec["config"], attention_dropout=0.0, bos_token_id=1, eos_token_id=2, pad_token_id=None, dtype="float32",
    )
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            if "norm" in name:
                p.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                p.copy_(0.3 * noise)
            elif "embed_tokens" in name:
                p.copy_(noise)
            else:
                gain = 1.6 if "q_proj" in name or "k_proj" in name else 1.2
                p.copy_(gain / math.sqrt(p.shape[1]) * noise)
    return model


def make_batch(spec):
    """The micro-batches: lists of {"tokens", "loss_from"}, never padded."""
    gen = torch.Generator().manual_seed(spec["seed"] + 1)
    vocab = spec["config"]["vocab_size"]
    return [
        [{"tokens": torch.randint(vocab, (n,), generator=gen).tolist(), "loss_from": start} for n, start in micro]
        for micro in spec["batch"]
    ]


def load_model(path, **kwargs):
    return LlamaForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager", **kwargs).eval()


def add_adapter(model, name, seed):
    """model under a LoRA adapter whose B is not zero."""
    settings, _ = ADAPTERS[name]
    model.name_or_path = model.config._name_or_path = ""
    torch.manual_seed(seed + 2)
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(**settings, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM")
    )
    gen = torch.Generator().manual_seed(seed + 3)
    with torch.no_grad():
        for p_name, p in wrapped.named_parameters():
            if "lora_B" in p_name:
                p.copy_(0.15 * torch.randn(p.shape, generator=gen))
    return wrapped.eval()


def save_adapter(model, path):
    model.save_pretrained(path)
    (path / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    # PEFT keeps target_modules in a set: the order it writes changes from run to run.
    config_path = path / "adapter_config.json"
    config = json.loads(config_path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True))


def plain_name(name):
    """A parameter's name in the saved adapter: without the adapter's own name."""
    return name.replace(".default.", ".")


# --- loss and gradients ----------------------------------------------------------


def sequence_loss(model, seq):
    """(sum of token losses, label tokens): tokens[j] for j >= max(1, loss_from) is predicted from logits[j-1]."""
    tokens = torch.tensor(seq["tokens"])
    start = max(1, seq["loss_from"])
    logits = model(input_ids=tokens[None], use_cache=False).logits[0]
    if start >= len(tokens):
        return 0.0 * logits.sum(), 0
    return F.cross_entropy(logits[start - 1 : -1], tokens[start:], reduction="sum"), len(tokens) - start


def run_batch(model, batch, backward=True):
    """Loss of every micro-batch and of the whole; gradients of the whole mean are left in .grad."""
    total = sum(max(0, len(s["tokens"]) - max(1, s["loss_from"])) for micro in batch for s in micro)
    model.zero_grad(set_to_none=True)
    micros = []
    for micro in batch:
        loss_sum, labels = 0.0, 0
        for seq in micro:
            loss, count = sequence_loss(model, seq)
            if backward:
                (loss / total).backward()
            loss_sum += loss.item()
            labels += count
        micros.append({"loss_sum": loss_sum, "label_tokens": labels, "loss_mean": loss_sum / labels})
    loss_sum = sum(m["loss_sum"] for m in micros)
    return {"loss_sum": loss_sum, "label_tokens": total, "loss_mean": loss_sum / total, "micro_batches": micros}


def gradients(model):
    grads = {plain_name(n): p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    assert all(g.abs().max() > 0 for g in grads.values()), "a gradient is all zero"
    return grads


@contextlib.contextmanager
def float64_llama():
    """Takes the casts to float32 out of transformers' Llama, so that a .double() model computes in float64.

    The rotary cosines and sines stay those of float32: they are part of the model.
    """

    def norm(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    def attention(module, q, k, v, mask, scaling, **kwargs):
        k, v = (modeling_llama.repeat_kv(t, module.num_key_value_groups) for t in (k, v))
        weights = F.softmax(q @ k.transpose(2, 3) * scaling + mask, dim=-1)
        return (weights @ v).transpose(1, 2).contiguous(), weights

    with (
        mock.patch.object(modeling_llama.LlamaRMSNorm, "forward", norm),
        mock.patch.object(modeling_llama, "eager_attention_forward", attention),
    ):
        yield


def expectation(model, batch):
    """(loss, gradients), and in the loss how far float32 is from float64: what a test may allow, at least.

    loss_mean_f64 is the mean loss in float64; grad_error is the largest |g32 - g64| over all
    gradients, as a share of the largest |g64|. The model is left in float64.
    """
    expect = run_batch(model, batch)
    grads = gradients(model)
    with float64_llama():
        expect["loss_mean_f64"] = run_batch(model.double(), batch)["loss_mean"]
        exact = gradients(model)
    largest = max(g.abs().max().item() for g in exact.values())
    expect["grad_error"] = max((grads[n] - g).abs().max().item() for n, g in exact.items()) / largest
    assert expect["grad_error"] < 1e-5 and abs(expect["loss_mean"] - expect["loss_mean_f64"]) < 1e-5, expect
    return expect, grads


def first_logits(model, batch):
    with torch.no_grad():
        return model(input_ids=torch.tensor([batch[0][0]["tokens"]]), use_cache=False).logits[0].clone()


# --- training runs ---------------------------------------------------------------

SCHEDULES = {
    "cosine": lambda opt, warmup, steps: transformers.get_cosine_schedule_with_warmup(opt, warmup, steps),
    "linear": lambda opt, warmup, steps: transformers.get_linear_schedule_with_warmup(opt, warmup, steps),
    "constant": lambda opt, warmup, steps: transformers.get_constant_schedule_with_warmup(opt, warmup),
}
OPTIMIZER = dict(lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
WARMUP = 2


def train(model, batch, schedule, steps, clip=1.0, decay_all=True):
    """Trains model in place on the same batch every step; returns what happened at each."""
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    spared = [p for n, p in trained if not decay_all and ("norm" in n or n.endswith("bias"))]
    decayed = [p for n, p in trained if not any(p is s for s in spared)]
    groups = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], foreach=False, **OPTIMIZER)
    scheduler = SCHEDULES[schedule](optimizer, WARMUP, steps)
    log = []
    for step in range(steps):
        loss = run_batch(model, batch)["loss_mean"]
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in trained], clip, foreach=False)
        log.append({"loss": loss, "grad_norm": norm.item(), "lr": scheduler.get_last_lr()[0]})
        optimizer.step()
        scheduler.step()
    return {
        "schedule": schedule, "warmup_steps": WARMUP, "steps": steps, "max_grad_norm": clip, **OPTIMIZER,
        "weight_decay_on": "every trained parameter" if decay_all else "all but norms and biases",
        "log": log, "final_loss": run_batch(model, batch, backward=False)["loss_mean"],
    }


def run_and_save(make, batch, path, name, **setting):
    """One run from a fresh make(); adds to its log how far the parameters end from the same run in float64."""

    def final(model):
        if isinstance(model, peft.PeftModel):
            return peft.get_peft_model_state_dict(model)
        return {n: p.detach() for n, p in model.named_parameters()}

    model, exact = make(), make().double()
    log = train(model, batch, **setting)
    save_file(final(model), path / f"train_{name}.safetensors")
    with float64_llama():
        train(exact, batch, **setting)
    exact = final(exact)
    log["final_error"] = max((p - exact[n]).abs().max().item() for n, p in final(model).items())
    assert log["final_error"] < 1e-4, "an update hangs on a rounding error: choose another seed"
    return log


def adapter_runs(path, batch):
    def make():
        return peft.PeftModel.from_pretrained(load_model(path), path / "adapter_r3", is_trainable=True).eval()

    runs = [(f"r3_{s}", dict(schedule=s, steps=8)) for s in SCHEDULES]
    # The gradient norm crosses this run's bound: some steps are clipped, some are not.
    runs.append(("r3_clip2.2", dict(schedule="cosine", steps=8, clip=2.2)))
    return {name: run_and_save(make, batch, path, name, **setting) for name, setting in runs}


def full_runs(path, batch):
    runs = [(name, dict(schedule="cosine", steps=5, decay_all=decay_all))
            for name, decay_all in [("full", True), ("full_norms_spared", False)]]
    return {name: run_and_save(lambda: load_model(path), batch, path, name, **setting) for name, setting in runs}


# --- NF4 -------------------------------------------------------------------------


def decode_nf4(tensors, name):
    """Decodes one serialized weight with numpy alone, to check bitsandbytes against its own format."""
    get = lambda part: tensors[f"{name}.{part}"].numpy()
    state = json.loads(bytes(get("quant_state.bitsandbytes__nf4")))
    nested = get("nested_quant_map")[get("absmax")]
    nested = nested * np.repeat(get("nested_absmax"), state["nested_blocksize"])[: nested.size]
    absmax = nested + np.float32(state["nested_offset"])
    packed = tensors[name].numpy().reshape(-1)
    codes = np.stack([packed >> 4, packed & 15], 1).reshape(-1)[: math.prod(state["shape"])]
    values = get("quant_map")[codes] * np.repeat(absmax, state["blocksize"])[: codes.size]
    return torch.from_numpy(values.reshape(state["shape"]))


def nf4_goldens(path, batch):
    """Saves path/nf4: the model as transformers saves it in 4 bits, and QLoRA's loss and gradients over it."""
    out = path / "nf4"
    quantized = load_model(
        path, device_map="cpu",
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    quantized.save_pretrained(out)

    stored = load_file(out / "model.safetensors")
    model = load_model(path)
    linears = [n for n in model.state_dict() if n.split(".")[-2] in SEVEN and n.endswith("weight")]
    with torch.no_grad():
        for name in linears:
            weight = model.get_parameter(name)
            packed, state = bnb.quantize_4bit(weight.data, blocksize=64, compress_statistics=True, quant_type="nf4")
            for part, want in {"": packed, **{"." + k: v for k, v in state.as_dict(packed=True).items()}}.items():
                assert torch.equal(stored[name + part], want), f"{name}{part}: saved is not what quantize_4bit gives"
            values = bnb.dequantize_4bit(packed, state)
            assert torch.equal(values, decode_nf4(stored, name)), f"{name}: dequantize_4bit is not what is stored"
            weight.copy_(values)

    model = peft.PeftModel.from_pretrained(model, path / "adapter_r3", is_trainable=True).eval()
    logits = {"r3": first_logits(model, batch)}
    with model.disable_adapter():
        logits["base"] = first_logits(model, batch)
    save_file(logits, out / "logits.safetensors")
    expect, grads = expectation(model, batch)
    save_file(grads, out / "grads_r3.safetensors")
    common.write_json(out / "expect.json", {"r3": expect})

    # The same through bitsandbytes' own linear layers, from the saved files. In
    # training mode (there is no dropout): in eval mode some CPUs get a repacked
    # weight with scales rounded to bf16, or a refusal where rows % 32 != 0.
    again = peft.PeftModel.from_pretrained(load_model(out, device_map="cpu"), path / "adapter_r3", is_trainable=True)
    loss = run_batch(again.train(), batch)["loss_mean"]
    assert abs(loss - expect["loss_mean"]) < 1e-5, (loss, expect["loss_mean"])


# --- one model's folder ----------------------------------------------------------


def goldens(name, spec, path):
    batch = make_batch(spec)
    make_model(spec).save_pretrained(path)
    common.write_json(path / "batch.json", {"micro_batches": batch})

    model = load_model(path)
    logits = {"base": first_logits(model, batch)}
    loss, grads = expectation(model, batch)
    save_file(grads, path / "grads_full.safetensors")
    expect = {"full": loss}

    for adapter, (_, models) in ADAPTERS.items():
        if name not in models:
            continue
        model = add_adapter(load_model(path), adapter, spec["seed"])
        save_adapter(model, path / f"adapter_{adapter}")
        model = peft.PeftModel.from_pretrained(load_model(path), path / f"adapter_{adapter}", is_trainable=True).eval()
        logits[adapter] = first_logits(model, batch)
        expect[adapter], grads = expectation(model, batch)
        save_file(grads, path / f"grads_{adapter}.safetensors")

    save_file(logits, path / "logits.safetensors")
    common.write_json(path / "expect.json", expect)
    if name == "gqa":
        common.write_json(path / "train.json", adapter_runs(path, batch))
        nf4_goldens(path, batch)
    if name == "mha_tied":
        common.write_json(path / "train.json", full_runs(path, batch))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to make, replaced if it exists")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    with tempfile.TemporaryDirectory() as tmp:
        for name, spec in MODELS.items():
            goldens(name, spec, Path(tmp, name))
            print(name, "done")
        common.write_json(Path(tmp, "versions.json"), common.versions(
            "torch", "transformers", "peft", "bitsandbytes", "safetensors", "numpy"))
        if args.out.exists():
            shutil.rmtree(args.out)
        shutil.copytree(tmp, args.out)


if __name__ == "__main__":
    main()
