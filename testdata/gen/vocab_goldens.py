"""The tokenizer.* keys that llama.cpp's own converter writes for four model directories.

    python vocab_goldens.py --model STORIES260K_HF_DIR --converter LLAMA.CPP/convert_hf_to_gguf.py \
        --out formats/vocab/testdata

Writes converter.json: for each variant of stories260K's directory the JSON files
that make it (beside tokenizer.model) and every tokenizer.* key of the GGUF file,
in order, with its type. Writes rewritten.model: tokenizer.model with exactly the
fields that nibble writes, by SentencePiece's own protocol buffer code; SentencePiece
loads it and splits text in the same way.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import common  # first: it sets up torch

import gguf
import transformers
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2 as pb
from convert_manifests import convert, converter_version

CONFIGS = ["config.json", "generation_config.json", "tokenizer_config.json"]


def added(content, special=False):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False,
            "single_word": False, "special": special}


def variants(model):
    """The changes to each JSON file, by variant."""
    plain = {name: json.loads((model / name).read_text()) for name in CONFIGS}
    yield "plain", plain

    # As transformers saves it beside tokenizer.model; the converter then finds <unk>.
    with tempfile.TemporaryDirectory() as tmp:
        transformers.AutoTokenizer.from_pretrained(model).save_pretrained(tmp)
        yield "tokenizer_json", {**plain, "tokenizer.json": json.loads(Path(tmp, "tokenizer.json").read_text())}

    # Added tokens of every kind, holes, names for special tokens, two templates.
    files = json.loads(json.dumps(plain))
    files["config.json"].update(vocab_size=524, unk_token_id=0, pad_token_id=515)
    files["added_tokens.json"] = {"<extra>": 512, "\u2581\u2581two": 513, "<beyond>": 900}
    files["tokenizer_config.json"].update(
        add_eos_token=True, add_prefix_space=False, pad_token=added("<|im_end|>"),
        chat_template=[{"name": "default", "template": "{{ messages }}"},
                       {"name": "tool use", "template": "{{ tools }}"}],
        added_tokens_decoder={
            "0": added("<unk>", True), "1": added("<s>", True), "2": added("</s>", True),
            "514": added("<|im_start|>", True), "515": added("<|im_end|>"), "516": added("\u2581\u2581"),
            "517": added("plain word"), "518": added("<unused7>"), "261": added("\u2581a", True), "901": added("<far>"),
        })
    yield "added", files

    # Nothing but the pieces and a config: every setting is the converter's default.
    yield "bare", {"config.json": plain["config.json"]}


def keys(path):
    """[[key, type, value]] of the tokenizer.* keys, in file order."""
    out = []
    for key, field in gguf.GGUFReader(path).fields.items():
        if key.startswith("tokenizer."):
            out.append([key, " ".join(t.name for t in field.types), field.contents()])
    return out


def rewrite(path):
    """The model with only the fields that have an effect, checked to have the same effect."""
    old = pb.ModelProto.FromString(path.read_bytes())
    new = pb.ModelProto()
    for piece in old.pieces:
        kept = new.pieces.add(piece=piece.piece, score=piece.score)
        if piece.type != pb.ModelProto.SentencePiece.NORMAL:
            kept.type = piece.type
    t = new.trainer_spec
    t.model_type, t.vocab_size, t.byte_fallback = pb.TrainerSpec.BPE, len(old.pieces), True
    t.unk_id, t.bos_id, t.eos_id, t.pad_id = 0, 1, 2, -1
    t.unk_surface, t.unk_piece, t.bos_piece, t.eos_piece = " \u2047 ", "<unk>", "<s>", "</s>"
    n = new.normalizer_spec
    n.name, n.add_dummy_prefix, n.remove_extra_whitespaces, n.escape_whitespaces = "identity", True, False, True
    data = new.SerializeToString()
    a = SentencePieceProcessor(model_proto=path.read_bytes())
    b = SentencePieceProcessor(model_proto=data)
    for text in ["", " ", "Once upon a time,\n there  was \u00e9 \u65e5 \x00 <s></s>", b"\xff\xf0\x9f"]:
        assert a.encode(text) == b.encode(text)
    assert (b.unk_id(), b.bos_id(), b.eos_id(), b.pad_id()) == (0, 1, 2, -1)
    return data


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the Hugging Face directory of stories260K")
    parser.add_argument("--converter", type=Path, required=True, help="convert_hf_to_gguf.py in llama.cpp's source")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    (args.out / "rewritten.model").write_bytes(rewrite(args.model / "tokenizer.model"))
    result = {"made_by": {"llama.cpp": converter_version(args.converter), **common.versions("transformers", "gguf", "sentencepiece")}}
    with tempfile.TemporaryDirectory() as tmp:
        for name, files in variants(args.model):
            model = Path(tmp, name)
            model.mkdir()
            for kept in ["tokenizer.model", "model.safetensors"]:
                shutil.copyfile(args.model / kept, model / kept)
            for file, value in files.items():
                (model / file).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
            out = Path(tmp, name + ".gguf")
            convert(args.converter, model, "f32", out)
            # What is in tokenizer.json does not matter here, only that it is there.
            if "tokenizer.json" in files:
                files = {**files, "tokenizer.json": {}}
            result[name] = {"files": files, "keys": keys(out)}
    common.write_json(args.out / "converter.json", result)


if __name__ == "__main__":
    main()
