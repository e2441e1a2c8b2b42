"""Small byte-level BPE tokenizers, laid out as the real ones of GPT-2, Llama 3 and Qwen2 are.

    python tiny_tokenizers.py --text tinyshakespeare/input.txt --out testdata/tokenizers

Trains a vocabulary of about 500 tokens for each kind with Hugging Face's tokenizers, on Shakespeare and a few
lines of other scripts, and writes tokenizer.json and tokenizer_config.json (for gpt2 also vocab.json and
merges.txt) as the checkpoints of those models have them. What they split text by is what the real files say.
"""

import argparse
import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, __version__, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# Enough of other scripts for the vocabulary to hold tokens that are no whole characters.
OTHER = ["Привет, мир! Как дела?", "你好，世界。今天天气很好。", "Zoë ate 12 crêpes at the café — naïvely.", "😀 😃 🦙🦙",
         "for (int i = 0; i < 1000; i++) {\n\t\tprintf(\"%d\\n\", i);\n\t}", "3.14159 2718281828 1,000,000",
         "مرحبا بالعالم", "नमस्ते दुनिया", "x  y   z    w"]

CHATML = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def special(text):
    return AddedToken(text, special=True, normalized=False)


def split(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])


def kinds():
    """name -> (tokenizer without a vocabulary, added tokens, tokenizer_config.json)."""
    gpt2 = Tokenizer(models.BPE())
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    gpt2.post_processor = processors.ByteLevel(trim_offsets=False)
    yield "gpt2", gpt2, [AddedToken("<|endoftext|>", special=True, normalized=True)], {
        "add_prefix_space": False, "bos_token": "<|endoftext|>", "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>", "model_max_length": 1024, "tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>"}

    llama3 = Tokenizer(models.BPE(ignore_merges=True))
    llama3.pre_tokenizer = split(LLAMA3)
    added = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    yield "llama3", llama3, [special(a) for a in added], {
        "bos_token": "<|begin_of_text|>", "clean_up_tokenization_spaces": True, "eos_token": "<|eot_id|>",
        "model_input_names": ["input_ids", "attention_mask"], "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast"}

    qwen2 = Tokenizer(models.BPE())
    qwen2.normalizer = normalizers.NFC()
    qwen2.pre_tokenizer = split(QWEN2)
    qwen2.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tool = AddedToken("<tool_call>", special=False, normalized=False)
    yield "qwen2", qwen2, [special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>"), tool], {
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "chat_template": CHATML,
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 32768,
        "pad_token": "<|endoftext|>", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}


def write(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, required=True, help="tinyshakespeare")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    text = [args.text.read_text()[:200_000], *OTHER * 40]
    for name, tok, added, config in kinds():
        tok.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
        trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
        tok.train_from_iterator(text, trainer)
        tok.add_tokens(added)
        out = args.out / name
        out.mkdir(parents=True, exist_ok=True)
        if name == "llama3":
            bos = "<|begin_of_text|>"
            tok.post_processor = processors.Sequence([
                processors.ByteLevel(add_prefix_space=True, trim_offsets=False, use_regex=True),
                processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1",
                                              special_tokens=[(bos, tok.token_to_id(bos))])])
        tok.save(str(out / "tokenizer.json"))
        config["added_tokens_decoder"] = {
            str(tok.token_to_id(a.content)): {"content": a.content, "lstrip": a.lstrip, "normalized": a.normalized,
                                              "rstrip": a.rstrip, "single_word": a.single_word, "special": a.special}
            for a in added}
        write(out / "tokenizer_config.json", config)
        if name == "gpt2":
            tok.model.save(str(out))
    print("tokenizers", __version__)


if __name__ == "__main__":
    main()
