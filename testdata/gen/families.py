"""Small random checkpoints of every family that nibble converts, and what transformers and llama.cpp make of them.

    PYTHONPATH=LLAMA_CPP/gguf-py python families.py --converter LLAMA_CPP/convert_hf_to_gguf.py \
        --interop INSTALLED_INTEROP --out testdata/families

For each family of family_table.py it writes the checkpoint, logits.safetensors, greedy.json and llamacpp_greedy.json,
and what the real converter makes of it: convert_TYPE.json. Runs under transformers 4.57.6, which llama.cpp v0.5.0
pins (requirements-converter.txt). `--only NAME` does one family, `--find-seed` prints the seed to put into the table.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import common as shared  # first: it sets up torch

import gguf
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer

from convert_manifests import TYPES, converter_version, manifest
from family_table import Family, FromConfig, families

PROMPTS = ["Once upon a time", "Tom had a big red ball. He",
           "One day, a little girl named Lily found a needle in her room. She knew it was difficult to play with it"]
NEW_TOKENS = 24
LENGTH, POSITIONS = 40, [0, 7, 8, 20, 32, 39]
SMALLEST_LEAD = 3e-3  # of the best logit, in greedy generation
SMALLEST_ROUTER_LEAD = 1e-3
SMALLEST_EFFECT = 0.1  # of the logits' spread, when a part is taken away


# ---- The checkpoint

def quiet_tokens(tokenizer, vocab, eos):
    """Tokens that are no text of their own: bytes, added tokens, padding. They are made unlikely, so that text is text."""
    quiet = []
    added = tokenizer.get_added_vocab().values()
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    byte = transformers.models.gpt2.tokenization_gpt2.bytes_to_unicode()
    printable = {byte[b] for b in b"\n" + bytes(range(32, 127))}
    byte_level = "Ġ" in pieces
    for i in range(vocab):
        if i in eos:
            continue
        piece = pieces[i] if i < len(pieces) else None
        plain = piece is not None and i not in added and not (piece.startswith("<0x") or piece in ("\t",))
        if not plain or (byte_level and not set(piece) <= printable):
            quiet.append(i)
    return quiet


def fill(model, family, quiet):
    """Random weights of a size that keeps every part of the network at work."""
    gen = torch.Generator().manual_seed(family.seed)
    gemma = "gemma" in family.name
    tied = model.config.get_text_config().tie_word_embeddings
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            last = name.split(".")[-2]
            if name.endswith("bias"):
                p.copy_(0.3 * noise)
            elif "norm" in last or last.startswith("ln_"):
                # Gemma's norms multiply by 1 + w: multiples of 1/256, so that 1 + w and back is exact in BF16.
                p.copy_((0.3 * noise * 256).round() / 256 if gemma else 1 + 0.3 * noise)
                if name.endswith("model.norm.weight"):
                    p += family.final_norm
            elif last in ("embed_tokens", "wte"):
                p.copy_(family.embed * noise)
                if tied:
                    p[quiet] *= 0.3
            elif last == "wpe":
                p.copy_(family.embed * noise)
            elif last == "lm_head":
                p.copy_(family.head / p.shape[1] ** 0.5 * noise)
                p[quiet] *= 0.3
            else:
                columns = p.shape[0] if last.startswith("c_") else p[0].numel()
                scale = 2.0 if last in ("q_proj", "k_proj", "gate", "shared_expert_gate", "c_attn", "qkv_proj") else family.gain
                p.copy_(scale / columns ** 0.5 * noise)


def model_class(config):
    return getattr(transformers, config.architectures[0])


ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "mixtral": "MixtralForCausalLM",
                 "qwen2": "Qwen2ForCausalLM", "qwen2_moe": "Qwen2MoeForCausalLM", "qwen3": "Qwen3ForCausalLM",
                 "qwen3_moe": "Qwen3MoeForCausalLM", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM",
                 "gemma3_text": "Gemma3ForCausalLM", "gemma3": "Gemma3ForConditionalGeneration", "phi3": "Phi3ForCausalLM",
                 "gpt2": "GPT2LMHeadModel"}


def make_checkpoint(family: Family, path: Path):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    config = family.config
    config.architectures = [ARCHITECTURES[config.model_type]]
    family.tokenizer(path)
    config.save_pretrained(path)  # the tokenizer of some families is found by it
    tokenizer = AutoTokenizer.from_pretrained(path)
    text = config.get_text_config()
    model = model_class(config)(config).eval()
    fill(model, family, quiet_tokens(tokenizer, text.vocab_size, family.eos))
    model.to(getattr(torch, family.dtype)).save_pretrained(path, max_shard_size=family.shard_size or "1GB")
    if family.edit is not None:
        written = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(family.edit(written), indent=2) + "\n")
    eos = list(family.eos) if len(family.eos) > 1 else family.eos[0]
    generation = {"bos_token_id": text.bos_token_id, "eos_token_id": eos, **family.generation, "transformers_version": "4.57.6"}
    (path / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    if family.card is not None:
        (path / "README.md").write_text(family.card)
    for file in path.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


# ---- What transformers makes of it

def load(path, change=None):
    config = AutoConfig.from_pretrained(path)
    if isinstance(change, dict):
        update(config, change)
    model = model_class(config).from_pretrained(path, config=config, dtype=torch.float32, attn_implementation="eager").eval()
    if callable(change):
        change(model)
    return model


def update(config, change):
    for key, value in change.items():
        if isinstance(value, dict) and hasattr(getattr(config, key, None), "to_dict"):
            update(getattr(config, key), value)
        else:
            assert hasattr(config, key), key
            setattr(config, key, value)


@torch.no_grad()
def logits_of(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0]


def watch_routers(model, leads):
    """Notes how close the chosen experts were to the next one."""
    def hook(module, args, out):
        top = out.float().reshape(-1, out.shape[-1]).sort(-1, descending=True).values
        leads.append((top[:, 1] - top[:, 2]).min().item())
    for name, module in model.named_modules():
        if name.endswith((".mlp.gate", ".block_sparse_moe.gate")):
            module.register_forward_hook(hook)


def greedy(model, tokenizer, eos):
    """Greedy text, every token from the whole sequence again: no cache can differ from it."""
    results = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt).input_ids
        new, leads, stopped = [], [], "length"
        while len(new) < NEW_TOKENS:
            top = logits_of(model, ids + new)[-1].topk(2)
            leads.append(((top.values[0] - top.values[1]) / top.values[0].abs()).item())
            token = top.indices[0].item()
            if token in eos:
                stopped = "end"
                break
            new.append(token)

        def text(tokens):
            return tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        results.append({
            "prompt": prompt, "prompt_tokens": ids, "tokens": new, "text": text(ids + new)[len(text(ids)):], "stopped": stopped,
            "smallest_lead": min(leads)})
    return results


def cached(model, result, eos):
    """The same with transformers' own generate and its cache."""
    ids = result["prompt_tokens"]
    # In place of what generation_config.json asks for: a value left at its default would be taken from there.
    model.generation_config = transformers.GenerationConfig(max_new_tokens=NEW_TOKENS, eos_token_id=list(eos), pad_token_id=0)
    out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
    new = out[0, len(ids):].tolist()
    return [t for t in new if t not in eos]


def sequence(family, length=LENGTH):
    """The beginning-of-text token and random ones."""
    gen = torch.Generator().manual_seed(1)
    return [family.config.get_text_config().bos_token_id, *torch.randint(3, 500, (length - 1,), generator=gen).tolist()]


def problems(family, model, tokenizer):
    """Why a checkpoint is no good golden: a choice that hangs on a rounding error, or the same token over and over."""
    routers, ended = [], 0
    watch_routers(model, routers)
    logits_of(model, sequence(family))
    for result in greedy(model, tokenizer, family.eos):
        ended += result["stopped"] == "end"
        if ended > 1 or len(result["tokens"]) < 6:
            yield "short text"
        if result["smallest_lead"] < SMALLEST_LEAD:
            yield f"greedy lead {result['smallest_lead']:.1e}"
        if len(set(result["tokens"])) < min(8, len(result["tokens"])):
            yield "dull text"
        if routers and min(routers) < SMALLEST_ROUTER_LEAD:
            yield f"router lead {min(routers):.1e}"


def change_of(family, path, name):
    """The change of the configuration, or of the model, that takes a part away."""
    change = family.ablations[name]
    return change(AutoConfig.from_pretrained(path)) if isinstance(change, FromConfig) else change


def ablate(family, path, ids, logits):
    """By how much the logits change, in units of their spread, when a part is left out."""
    effects, whole = {}, (ids, logits)
    for name in family.ablations:
        # The short factors matter to short sequences alone.
        ids, logits = whole if name != "short factors" else (ids[:32], logits_of(load(path), ids[:32]))
        got = logits_of(load(path, change_of(family, path, name)), ids)
        effects[name] = round(((got - logits).abs().max() / logits.std()).item(), 2)
        assert effects[name] >= SMALLEST_EFFECT, f"{family.name}: {name} changes the logits by {effects[name]} only"
    return effects


def find_seed(family, tmp):
    """The first seed without problems. The weights are rounded as the file would."""
    make_checkpoint(family, tmp)
    tokenizer, config = AutoTokenizer.from_pretrained(tmp), AutoConfig.from_pretrained(tmp, attn_implementation="eager")
    quiet = quiet_tokens(tokenizer, config.get_text_config().vocab_size, family.eos)
    for family.seed in range(1, 3000):
        model = model_class(config)(config).eval()
        fill(model, family, quiet)
        for p in model.parameters():
            p.data = p.data.to(getattr(torch, family.dtype)).float()
        if next(problems(family, model, tokenizer), None) is None:
            return family.seed
    raise SystemExit(f"{family.name}: no seed found")


# ---- What llama.cpp makes of it

def run_converter(script, pre, jobs):
    """Runs the jobs in one process. The error is the converter's last line, None if there is none."""
    run = subprocess.run([sys.executable, Path(__file__).with_name("family_convert.py"), script, pre or "-"],
                         input=json.dumps([[str(a) for a in job] for job in jobs]), capture_output=True, text=True)
    if run.returncode == 0:
        return None
    return run.stderr.strip().splitlines()[-1]


def full_manifest(path):
    """As convert_manifests.py's, and short arrays with their values."""
    result = manifest(path)
    for key, field in gguf.GGUFReader(path).fields.items():
        entry = result["metadata"].get(key)
        if entry is not None and entry["type"] == "array" and entry["length"] <= 16:
            entry["values"] = field.contents()
    for name, tensor in ((t.name, t) for t in gguf.GGUFReader(path).tensors):
        if name.startswith("rope_f"):
            result["tensors"][name]["values"] = tensor.data.tolist()
    return result


def write_manifest(path, value):
    """JSON with one line for each key and each tensor."""
    def lines(value, depth):
        if depth == 2 or not isinstance(value, dict):
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        pad = "  " * (depth + 1)
        body = (f"{pad}{json.dumps(k, ensure_ascii=False)}: {lines(v, depth + 1)}" for k, v in value.items())
        return "{\n" + ",\n".join(body) + "\n" + "  " * depth + "}"
    path.write_text(lines(value, 0) + "\n", encoding="utf-8")


def convert(family, path, script, made_by, tmp):
    """convert_TYPE.json for each type; the file in F32."""
    files = {t: tmp / f"{family.name}.{t}.gguf" for t in TYPES}
    error = run_converter(script, family.pre, [[path, "--outfile", files[t], "--outtype", t] for t in TYPES])
    if error is not None:
        assert error == family.convert_error, error
        shared.write_json(path / "convert_error.json", {"made_by": made_by, "error": error})
        return None
    assert family.convert_error is None, f"{family.name} converts now"
    whole = {}
    for outtype, file in files.items():
        result = {"made_by": made_by, "outtype": outtype, **full_manifest(file)}
        same = whole.setdefault(result["file"]["sha256"], outtype)
        assert (same == outtype) == (outtype != "auto")  # which is the same file as one of the others
        if outtype in ("f16", "bf16", "auto") and not family.all_manifests:
            del result["metadata"], result["tensors"]  # the hash of the whole file is enough
        write_manifest(path / f"convert_{outtype}.json", result)
    return files["f32"]


def split(family, path, script, made_by, tmp):
    """splits.json: each part of a file split by --split-max-tensors or --split-max-size."""
    out = tmp / f"{family.name}-split.gguf"
    error = run_converter(script, family.pre, [[path, "--outfile", out, "--outtype", "f32", *family.split]])
    assert error is None, error
    parts = {}
    for file in sorted(tmp.glob(f"{out.stem}-*.gguf")):
        result = full_manifest(file)
        parts[file.name] = {
            "file": result["file"], "metadata": {k: v for k, v in result["metadata"].items() if k.startswith("split.")},
            "other_keys": len(result["metadata"]) - 3, "tensors": list(result["tensors"])}
    shared.write_json(path / "splits.json", {"made_by": made_by, "outtype": "f32", "options": family.split, "parts": parts})


def llamacpp(gguf_file, interop, tmp):
    prompts = tmp / "prompts.json"
    prompts.write_text(json.dumps({"max_tokens": NEW_TOKENS, "prompts": PROMPTS}))
    run = subprocess.run(["node", interop / "interop.mjs", gguf_file, prompts], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def write_greedy(family, path, model, tokenizer, gguf_file, interop, made_by, tmp):
    results = greedy(model, tokenizer, family.eos)
    as_llamacpp = results
    if family.llamacpp_without is not None:
        as_llamacpp = greedy(load(path, change_of(family, path, family.llamacpp_without)), tokenizer, family.eos)
    theirs = None
    if gguf_file is not None:
        theirs = llamacpp(gguf_file, interop, tmp)
        shared.write_json(path / "llamacpp_greedy.json", {"converted_f32": theirs})
    for i, result in enumerate(results):
        result["generate_agrees"] = cached(model, result, family.eos) == result["tokens"]
        if theirs is not None:
            other = theirs["results"][i]
            assert other["prompt_tokens"] == result["prompt_tokens"], (family.name, other, result)
            # Where llama.cpp differs, it is known why, and transformers says the same when it is told to do the same.
            assert other["tokens"] == as_llamacpp[i]["tokens"], (family.name, other, as_llamacpp[i])
            result["llamacpp_agrees"] = other["tokens"] == result["tokens"]
    print("   generate agrees", [r["generate_agrees"] for r in results], "llama.cpp agrees",
          [r.get("llamacpp_agrees") for r in results], flush=True)
    shared.write_json(path / "greedy.json", {**made_by, "results": results})


def make(family, out, script, interop, made_by, tmp):
    path = out / family.name
    make_checkpoint(family, path)
    converted_by = {"llama.cpp": converter_version(script), **made_by}
    gguf_file = convert(family, path, script, converted_by, tmp)
    if family.split:
        split(family, path, script, converted_by, tmp)

    model, tokenizer = load(path), AutoTokenizer.from_pretrained(path)
    found = list(problems(family, model, tokenizer))
    assert not found, (family.name, found)
    ids = sequence(family)
    logits = logits_of(model, ids)
    effects = ablate(family, path, ids, logits)
    save_logits(path / "logits.safetensors", ids, logits)
    if family.also_short:
        ids = ids[:32]
        save_logits(path / "logits_short.safetensors", ids, logits_of(model, ids))
    write_greedy(family, path, model, tokenizer, gguf_file, interop, made_by, tmp)
    return effects


def save_logits(path, ids, logits, positions=POSITIONS):
    at = [p for p in positions if p < len(ids)] + ([len(ids) - 1] if len(ids) - 1 not in positions else [])
    save_file({"tokens": torch.tensor(ids), "positions": torch.tensor(at), "logits": logits[at].contiguous()}, path)
    path.chmod(0o644)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--converter", type=Path, required=True, help="convert_hf_to_gguf.py in llama.cpp's source")
    parser.add_argument("--interop", type=Path, required=True, help="folder with interop.mjs and its node_modules")
    parser.add_argument("--out", type=Path, required=True, help="testdata/families")
    parser.add_argument("--only", nargs="*", help="these families alone")
    parser.add_argument("--find-seed", action="store_true")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    made_by = shared.versions("torch", "transformers", "tokenizers", "sentencepiece")
    chosen = [f for f in families() if not args.only or f.name in args.only]

    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        if args.find_seed:
            for family in chosen:
                print(family.name, find_seed(family, tmp / family.name), flush=True)
            return

        effects = {}
        for family in chosen:
            print(family.name, flush=True)
            effects[family.name] = make(family, args.out, args.converter, args.interop, made_by, tmp)
        if not args.only:
            shared.write_json(args.out / "ablations.json", {**made_by, "largest_change_in_units_of_the_logits_spread": effects})
        else:
            print(json.dumps(effects, indent=1))


if __name__ == "__main__":
    main()
