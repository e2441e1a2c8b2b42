"""Goldens of the real stories260K model: tokens, greedy text, logits, perplexity.

    python stories_goldens.py --model STORIES260K_HF_DIR --shakespeare INPUT.TXT --out testdata

transformers in float32 on one CPU thread, SentencePiece for the tokens. Writes
its files into stories260K/ and greedy.json into tiny_llama3/, which
convert_manifests.py made.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

import common  # first: it sets up torch

import sentencepiece
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaForCausalLM

PROMPTS = Path(__file__).parent.parent / "interop" / "prompts.json"
TEXT_BYTES = 4096  # the text is cut at the last blank line before this

# Texts whose tokens are easy to get wrong.
TEXTS = [
    "", " ", "  ", "a", " a", "Once upon a time", "  two  spaces ", "ends with a space ", "\n", "\n\nLily",
    "tab\there", "carriage\r\nreturn", "12 + 34 = 46", "naïve café", "Zoë 😀!", "ﬁne Ａ①", "日本語", "▁", "a▁b",
    "nul\x00byte", "<s> hi </s> <unk> <0x41>", "Supercalifragilistic", "eeeeeeee", "!!!???", "e\u0301",
]

PLAIN_RULE = (
    "Encode the text without BOS. Cut the tokens into consecutive pieces of window - 1 = 255 (the last may be "
    "shorter). Put BOS before each piece: a window of at most 256 tokens, seen alone. Score every token of the piece, "
    "each predicted from BOS and the tokens of its own window before it. loss = sum of negative natural-log "
    "probabilities / number of scored tokens; perplexity = exp(loss)."
)
LLAMA_RULE = (
    "Encode the text with BOS in front. The number of chunks is floor(tokens / n_ctx); what is left over is dropped; "
    "fewer than 2*n_ctx tokens is an error. Chunk c is tokens[c*n_ctx : (c+1)*n_ctx] with its first token replaced by "
    "BOS, seen alone. With first = n_ctx/2 (rounded down), the logits at positions first .. n_ctx-2 score the tokens "
    "at first+1 .. n_ctx-1: n_ctx - 1 - first tokens per chunk. perplexity = exp(sum of negative natural-log "
    "probabilities / count); running[c] is the perplexity over chunks 0..c, as llama-perplexity prints it; "
    "std_error = perplexity * sqrt((mean of squares - square of mean) / (count - 1))."
)


def load(path):
    model = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    return model, sentencepiece.SentencePieceProcessor(model_file=str(path / "tokenizer.model"))


def greedy(model, sp, prompts, max_tokens):
    """What interop.mjs prints, from transformers, with the smallest lead of the best logit over the second."""
    results = []
    for prompt in prompts:
        ids = [sp.bos_id()] + sp.encode(prompt)
        out = model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=max_tokens, output_logits=True,
            return_dict_in_generate=True, pad_token_id=sp.eos_id(),
        )
        new = out.sequences[0, len(ids) :].tolist()
        top = torch.stack(out.logits)[:, 0].topk(2).values
        ended = new[-1] == sp.eos_id()
        new = new[:-1] if ended else new
        results.append({
            "prompt": prompt, "prompt_tokens": ids, "tokens": new,
            "text": sp.decode(ids + new)[len(sp.decode(ids)) :], "stopped": "end" if ended else "length",
            "smallest_lead": (top[:, 0] - top[:, 1]).min().item(),
        })
    return results


def tokenization(sp, hf):
    return [
        {"text": t, "tokens": sp.encode(t), "decoded": sp.decode(sp.encode(t)),
         "transformers_agrees": hf(t, add_special_tokens=False).input_ids == sp.encode(t)}
        for t in TEXTS
    ]


@torch.no_grad()
def nll(model, ids, first=0):
    """Negative log probability of ids[first+1:], each from the tokens before it; softmax in float64."""
    ids = torch.tensor(ids)
    logp = torch.log_softmax(model(ids[None], use_cache=False).logits[0].double(), -1)
    return -logp[first:-1].gather(1, ids[first + 1 :, None])[:, 0]


def plain(model, tokens, bos, window=256):
    pieces = [tokens[i : i + window - 1] for i in range(0, len(tokens), window - 1)]
    sums = [nll(model, [bos] + p).sum().item() for p in pieces]
    loss = sum(sums) / len(tokens)
    return {
        "rule": PLAIN_RULE, "window": window, "scored_tokens": len(tokens), "loss": loss, "perplexity": math.exp(loss),
        "windows": [{"scored_tokens": len(p), "nll": s} for p, s in zip(pieces, sums)],
    }


def llama_perplexity(model, tokens, bos, n_ctx):
    tokens, first = [bos] + tokens, n_ctx // 2
    assert len(tokens) >= 2 * n_ctx
    values, running = torch.zeros(0, dtype=torch.float64), []
    for start in range(0, len(tokens) - n_ctx + 1, n_ctx):
        chunk = [bos] + tokens[start + 1 : start + n_ctx]
        values = torch.cat([values, nll(model, chunk, first)])
        running.append(math.exp(values.mean()))
    mean, count = values.mean().item(), len(values)
    spread = math.sqrt(((values**2).mean().item() - mean**2) / (count - 1))
    return {
        "n_ctx": n_ctx, "chunks": len(running), "scored_tokens": count, "loss": mean, "perplexity": math.exp(mean),
        "std_error": spread * math.exp(mean), "running": running,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the Hugging Face directory of stories260K")
    parser.add_argument("--shakespeare", type=Path, required=True, help="tinyshakespeare's input.txt")
    parser.add_argument("--out", type=Path, required=True, help="the testdata folder")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    made_by = common.versions("torch", "transformers", "sentencepiece")
    request = json.loads(PROMPTS.read_text(encoding="utf-8"))
    out, tiny = args.out / "stories260K", args.out / "tiny_llama3"
    out.mkdir(parents=True, exist_ok=True)

    results = greedy(*load(tiny), request["prompts"], request["max_tokens"])
    common.write_json(tiny / "greedy.json", {**made_by, "results": results})
    model, sp = load(args.model)
    results = greedy(model, sp, request["prompts"], request["max_tokens"])
    common.write_json(out / "greedy.json", {**made_by, "results": results})

    common.write_json(out / "tokenization.json", {
        **made_by, "results": tokenization(sp, AutoTokenizer.from_pretrained(args.model))})

    ids = torch.tensor((results[0]["prompt_tokens"] + results[0]["tokens"])[:32])
    with torch.no_grad():
        save_file({"tokens": ids, "logits": model(ids[None]).logits[0].clone()}, out / "logits.safetensors")

    raw = args.shakespeare.read_bytes()
    text = raw[: raw.rindex(b"\n\n", 0, TEXT_BYTES) + 1]
    (out / "shakespeare.txt").write_bytes(text)
    tokens = sp.encode(text.decode())
    common.write_json(out / "perplexity.json", {
        **made_by, "text": "shakespeare.txt", "text_bytes": len(text), "text_sha256": hashlib.sha256(text).hexdigest(),
        "tokens_without_bos": tokens,
        "plain": plain(model, tokens, sp.bos_id()),
        "llama_perplexity": {
            "rule": LLAMA_RULE, "runs": [llama_perplexity(model, tokens, sp.bos_id(), n) for n in (128, 256)]},
    })


if __name__ == "__main__":
    main()
