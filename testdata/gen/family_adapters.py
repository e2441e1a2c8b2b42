"""LoRA adapters on two of the families, as PEFT writes them, and what llama.cpp's converter makes of them.

    PYTHONHASHSEED=0 PYTHONPATH=LLAMA_CPP/gguf-py python family_adapters.py \
        --converter LLAMA_CPP/convert_lora_to_gguf.py --out testdata/families

Run families.py first. Writes adapters/NAME/: the adapter, logits.safetensors and greedy.json of the model with it, and
convert_f32.json of the GGUF adapter. PYTHONHASHSEED: PEFT keeps target_modules as a set.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import common as shared  # first: it sets up torch

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

import families
from convert_manifests import converter_version

# Each seed is the first from 1 on whose greedy text is decisive.
ADAPTERS = {
    "llama-lora": dict(base="llama", seed=6, lora_alpha=6, lora_dropout=0.05),
    "qwen2-lora": dict(base="qwen2", seed=14, lora_alpha=8, lora_dropout=0.0),
}
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
POSITIONS = [0, 8, 39]


def adapt(out, base, seed, **options):
    model = families.load(out / base)
    model.name_or_path = model.config._name_or_path = f"nibble-tests/{base}"
    model = get_peft_model(model, LoraConfig(r=4, target_modules=MODULES, task_type="CAUSAL_LM", **options)).eval()
    gen = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data.copy_(torch.randn(p.shape, generator=gen) * (1 / p.shape[1] ** 0.5 if "lora_A" in name else 0.25))
    return model


def front_matter_only(path):
    """PEFT's model card is a form to fill in; the converter reads its head alone."""
    text = path.read_text()
    path.write_text(text[: text.index("\n---\n", 4) + 5])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--converter", type=Path, required=True, help="convert_lora_to_gguf.py in llama.cpp's source")
    parser.add_argument("--out", type=Path, required=True, help="testdata/families")
    args = parser.parse_args()
    assert os.environ.get("PYTHONHASHSEED") == "0", "set PYTHONHASHSEED=0"
    transformers.logging.set_verbosity_error()
    made_by = shared.versions("torch", "transformers", "peft")
    table = {f.name: f for f in families.families()}

    for name, options in ADAPTERS.items():
        path, family = args.out / "adapters" / name, table[options["base"]]
        shutil.rmtree(path, ignore_errors=True)
        model = adapt(args.out, **options)
        model.save_pretrained(path)
        front_matter_only(path / "README.md")
        ids = families.sequence(family)
        families.save_logits(path / "logits.safetensors", ids, families.logits_of(model, ids), POSITIONS)
        results = families.greedy(model, AutoTokenizer.from_pretrained(args.out / family.name), family.eos)
        assert min(r["smallest_lead"] for r in results) >= families.SMALLEST_LEAD, (name, results)
        shared.write_json(path / "greedy.json", {**made_by, "base": family.name, "results": results})
        with tempfile.TemporaryDirectory() as tmp:
            file = Path(tmp, "adapter.gguf")
            error = families.run_converter(args.converter, family.pre,
                                           [["--base", args.out / family.name, "--outfile", file, "--outtype", "f32", path]])
            assert error is None, error
            families.write_manifest(path / "convert_f32.json", {
                "made_by": {"llama.cpp": converter_version(args.converter), **made_by}, "outtype": "f32",
                **families.full_manifest(file)})
        for file in path.iterdir():
            file.chmod(0o644)


if __name__ == "__main__":
    main()
