"""What another transformers makes of the families: prints every difference from what families.py wrote.

    PYTHONPATH=LLAMA_CPP/gguf-py python families_check.py --converter LLAMA_CPP/convert_hf_to_gguf.py --families testdata/families

Run it with the versions of requirements.txt. Writes nothing.
"""

import argparse
import json
import tempfile
from pathlib import Path

import common  # first: it sets up torch

import transformers
from safetensors.torch import load_file
from transformers import AutoTokenizer

from convert_manifests import TYPES, manifest
from families import PROMPTS, cached, families, load, logits_of, run_converter


def differences(old, new, where=""):
    """The paths at which two JSON values differ, and the two values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            if key != "values":  # the hash says it already
                yield from differences(old.get(key), new.get(key), f"{where}/{key}")
        shared = [k for k in old if k in new]
        if shared != [k for k in new if k in old]:
            yield where, "order", [k for k in new if k in old]
    elif old != new:
        yield where, old, new


def check(family, path, script, tmp):
    eos = family.eos
    tokenizer = AutoTokenizer.from_pretrained(path)
    golden = json.loads((path / "greedy.json").read_text())["results"]
    for prompt, result in zip(PROMPTS, golden):
        ids = tokenizer(prompt).input_ids
        if ids != result["prompt_tokens"]:
            yield f"tokens of {prompt[:20]!r}: {result['prompt_tokens'][:6]} -> {ids[:6]}"
    model = load(path)
    for name in ("logits", "logits_short"):
        if (path / f"{name}.safetensors").exists():
            want = load_file(path / f"{name}.safetensors")
            got = logits_of(model, want["tokens"].tolist())[want["positions"]]
            error = ((got - want["logits"]).abs().max() / want["logits"].std()).item()
            yield f"{name} differ by {error:.1e} of their spread" + ("" if error < 1e-4 else "  <-- !")
    for result in golden:
        # From the golden's own tokens, whatever this tokenizer makes of the prompt.
        if cached(model, result, eos) != result["tokens"]:
            yield f"generate differs after {result['prompt'][:20]!r}"
    files = {t: tmp / f"{family.name}.{t}.gguf" for t in TYPES}
    error = run_converter(script, family.pre, [[path, "--outfile", files[t], "--outtype", t] for t in TYPES])
    if error is not None:
        yield f"convert: {error}"
        return
    for outtype, file in files.items():
        old, new = json.loads((path / f"convert_{outtype}.json").read_text()), manifest(file)
        if old["file"]["sha256"] == new["file"]["sha256"]:
            continue
        yield f"convert {outtype}: another file"
        if "metadata" in old:
            for part in ("metadata", "tensors"):
                for where, a, b in differences(old[part], new[part], part):
                    yield f"  {where}: {a} -> {b}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--converter", type=Path, required=True)
    parser.add_argument("--families", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(common.versions("torch", "transformers", "tokenizers"))
    with tempfile.TemporaryDirectory() as tmp:
        for family in families():
            if args.only and family.name not in args.only:
                continue
            print(family.name, flush=True)
            for line in check(family, args.families / family.name, args.converter, Path(tmp)):
                print("   ", line, flush=True)


if __name__ == "__main__":
    main()
