"""The families: how each checkpoint is configured, what its weights are, and what is taken away to prove that it matters."""

from dataclasses import dataclass, field
from typing import Callable

import transformers as hf
import torch

import family_tokenizers as tokenizers

WINDOW = 8


@dataclass
class FromConfig:
    """A change of the configuration that starts from it."""
    change: Callable

    def __call__(self, config):
        return self.change(config)


@dataclass
class Family:
    name: str  # the directory, so the converter's general.name
    config: object
    tokenizer: Callable
    seed: int  # the first from 1 on whose greedy text never hangs on a rounding error; see families.py --find-seed
    dtype: str = "bfloat16"
    pre: str | None = None  # the name of the pre-tokenizer: the hash of a small vocabulary is unknown to the converter
    embed: float = 0.5  # spread of the token embeddings: small, so that the layers have a say
    gain: float = 1.4  # of the matrices
    final_norm: float = 0.0  # added to the last norm of a Gemma with small embeddings
    head: float = 4.0  # spread of the logits of an untied head
    eos: tuple = (2,)
    generation: dict = field(default_factory=dict)
    edit: Callable | None = None  # a change to config.json as transformers 4.57.6 writes it
    card: str | None = None
    shard_size: str | None = None
    ablations: dict = field(default_factory=dict)  # name -> a change of the configuration (dict) or of the loaded model
    convert_error: str | None = None  # what the converter says if it cannot
    all_manifests: bool = False  # with every key and tensor, for f16, bf16 and auto too
    llamacpp_without: str | None = None  # the ablation that llama.cpp's own reading of the file amounts to
    split: list = field(default_factory=list)  # options of the converter, for splits.json
    also_short: bool = False  # logits of a second sequence that ends at the original context


# ---- What can be taken away from a loaded model. Each returns nothing and changes the model.

def identity(*suffixes):
    def change(model):
        for name, module in model.named_modules():
            if name.endswith(suffixes):
                module.forward = lambda x, *a, **k: x
    return change


def zero(*suffixes):
    def change(model):
        found = [p for name, p in model.named_parameters() if name.endswith(suffixes)]
        assert found, suffixes
        for p in found:
            p.data.zero_()
    return change


def no_rope(model):
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            module.inv_freq.zero_()
            module.original_inv_freq = module.inv_freq
            module.long_inv_freq = module.inv_freq


def tied_head(model):
    model.lm_head.weight.data = model.get_input_embeddings().weight.data


def no_embed_scale(model):
    embed = model.get_input_embeddings()
    scale = model.config.get_text_config().hidden_size ** 0.5
    embed.register_forward_hook(lambda module, args, out: out / scale)


def norms_without_plus_one(model):
    for name, p in model.named_parameters():
        if name.endswith("norm.weight"):
            p.data -= 1


def activation(kind):
    def change(model):
        for module in model.modules():
            for name in ("act_fn", "act", "activation_fn"):
                if hasattr(module, name):
                    setattr(module, name, hf.activations.ACT2FN[kind])
    return change


def no_router_norm(model):
    """Mixtral's two best probabilities as they are, not divided by their sum."""
    for module in model.modules():
        if type(module).__name__ == "MixtralSparseMoeBlock":
            def forward(x, old=module.forward, gate=module.gate):
                out, logits = old(x)
                top = logits.float().softmax(-1).topk(2).values.sum(-1)
                return out * top.reshape(*out.shape[:-1], 1), logits
            module.forward = forward


def shared_gate_open(model):
    for name, module in model.named_modules():
        if name.endswith("shared_expert_gate"):
            module.forward = lambda x: torch.full((*x.shape[:-1], 1), 50.0)


def global_theta_everywhere(model):
    text = model.model if hasattr(model.model, "rotary_emb_local") else model.model.language_model
    text.rotary_emb_local = text.rotary_emb


QK_NORM = {"q_norm": identity("q_norm"), "k_norm": identity("k_norm")}
ROPE = {"rope": no_rope}
UNTIED = {"separate head": tied_head}
QKV_BIAS = {"q, k and v biases": zero("q_proj.bias", "k_proj.bias", "v_proj.bias")}
POST_NORMS = {"post-attention norm": identity("post_attention_layernorm"),
              "post-feed-forward norm": identity("post_feedforward_layernorm")}
GEMMA = {"embedding scale": no_embed_scale, "1 added to norms": norms_without_plus_one, "gelu": activation("silu")}
ALL_SLIDING = {"full layers": FromConfig(lambda c: {"layer_types": ["sliding_attention"] * c.num_hidden_layers})}


def common(hidden=32, heads=4, kv=2, inter=64, layers=2, vocab=512, **more):
    return dict(hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv, intermediate_size=inter,
                num_hidden_layers=layers, vocab_size=vocab, **more)


SPM = dict(bos_token_id=1, eos_token_id=2)
QWEN = dict(bos_token_id=500, eos_token_id=502)

LLAMA_CARD = """---
license: mit
base_model:
- nibble-tests/Tiny-Base-0.1M-v0.1
- https://huggingface.co/nibble-tests/Other-Base-7B
tags:
- llama
- tiny-stories
language:
- en
- no
datasets:
- roneneldan/TinyStories
- https://huggingface.co/datasets/nibble-tests/made-up
pipeline_tag: text-generation
library_name: transformers
---

# Random numbers

Not a model that says anything: nibble's tests compare what programs make of it.
"""

QWEN_CARD = """---
license: other
license_name: tiny-research
license_link: https://huggingface.co/nibble-tests/qwen2/blob/main/LICENSE
language: en
base_model: nibble-tests/Tiny-Qwen2-0.1M
base_model_relation: finetune
pipeline_tag: text-generation
---

# Random numbers
"""


def _old_llama(config):
    """Spelled as configurations were in 2023: torch_dtype, `type`, the name it was loaded by, no head_dim."""
    config.pop("dtype")
    config.pop("head_dim")
    config["rope_scaling"] = {"factor": config["rope_scaling"]["factor"], "type": "linear"}
    return {"_name_or_path": "nibble-tests/Tiny-Llama-0.1M-Chat-v1.2", **config, "torch_dtype": "bfloat16",
            "transformers_version": "4.31.0"}


def _qwen_window(config):
    """As Qwen2's repositories have it: a window that is not used."""
    config.pop("layer_types")
    return {**config, "sliding_window": WINDOW, "max_window_layers": 2, "use_sliding_window": False}


def _google_gemma3(config):
    """As google/gemma-3-4b-it has it: what equals transformers' defaults is not written, eos_token_id is a list."""
    text = config["text_config"]
    kept = ["head_dim", "hidden_size", "intermediate_size", "model_type", "num_attention_heads", "num_hidden_layers",
            "num_key_value_heads", "query_pre_attn_scalar", "rope_scaling", "sliding_window", "vocab_size"]
    vision = config["vision_config"]
    return {
        "architectures": config["architectures"], "boi_token_index": 519, "eoi_token_index": 520, "eos_token_id": [1, 107],
        "image_token_index": 518, "initializer_range": 0.02, "mm_tokens_per_image": 4, "model_type": "gemma3",
        "text_config": {k: text[k] for k in kept}, "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
        "vision_config": {k: vision[k] for k in ["hidden_size", "image_size", "intermediate_size", "model_type",
                                                 "num_attention_heads", "num_hidden_layers", "patch_size"]}
        | {"vision_use_head": False},
    }


def families():
    yield Family(
        "llama", hf.LlamaConfig(**common(inter=96), **SPM, rms_norm_eps=1e-5, max_position_embeddings=256),
        tokenizers.llama, seed=7, all_manifests=True, card=LLAMA_CARD, shard_size="70KB", split=["--split-max-size", "100K"],
        generation=dict(do_sample=True, temperature=0.6, top_p=0.9, max_length=4096, pad_token_id=0),
        ablations=ROPE | UNTIED)
    yield Family(
        "llama3", hf.LlamaConfig(**common(), head_dim=16, bos_token_id=500, eos_token_id=504, tie_word_embeddings=True,
                                 rms_norm_eps=1e-5, max_position_embeddings=256, rope_theta=10000.0,
                                 # Wavelengths 6, 20, 63, ...: kept, blended, divided.
                                 rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                   original_max_position_embeddings=32)),
        tokenizers.llama3, seed=7, dtype="float16", all_manifests=True, pre="llama-bpe", eos=(501, 504),
        ablations=ROPE | {"llama3 rope factors": {"rope_scaling": None}})
    yield Family(
        "llama-linear", hf.LlamaConfig(**common(hidden=48), **SPM, tie_word_embeddings=True, rms_norm_eps=1e-6,
                                       max_position_embeddings=256, rope_scaling=dict(rope_type="linear", factor=2.5)),
        tokenizers.llama_bare, seed=6, edit=_old_llama,
        ablations=ROPE | {"linear rope scaling": {"rope_scaling": None}})
    yield Family(
        "mistral", hf.MistralConfig(**common(), **SPM, head_dim=16, sliding_window=WINDOW, rope_theta=1000000.0,
                                    rms_norm_eps=1e-5, max_position_embeddings=256, tie_word_embeddings=True),
        tokenizers.mistral, seed=9,
        llamacpp_without="sliding window",  # the converter does not write it
        ablations=ROPE | {"sliding window": {"sliding_window": None}})
    yield Family(
        "mixtral", hf.MixtralConfig(**common(inter=32), **SPM, num_local_experts=4, num_experts_per_tok=2, sliding_window=None,
                                    rms_norm_eps=1e-5, max_position_embeddings=256, rope_theta=1000000.0,
                                    tie_word_embeddings=True),
        tokenizers.mixtral, seed=6,
        ablations=ROPE | {"router normalisation": no_router_norm, "second expert": {"num_experts_per_tok": 1}})
    yield Family(
        "qwen2", hf.Qwen2Config(**common(inter=96), **QWEN, rope_theta=1000000.0, max_position_embeddings=256),
        tokenizers.qwen2, seed=2, pre="qwen2", eos=(502, 500), card=QWEN_CARD, edit=_qwen_window,
        split=["--split-max-tensors", "10"],
        generation=dict(pad_token_id=500, do_sample=True, repetition_penalty=1.05, temperature=0.7, top_p=0.8, top_k=20),
        ablations=ROPE | UNTIED | QKV_BIAS | {"use_sliding_window false": {
            "use_sliding_window": True, "sliding_window": WINDOW, "layer_types": ["sliding_attention"] * 2}})
    yield Family(
        "qwen2-yarn", hf.Qwen2Config(**common(heads=2, kv=1), **QWEN, rope_theta=100.0, max_position_embeddings=256,
                                     tie_word_embeddings=True,
                                     # Of eight frequencies one is kept, four are blended, three are divided.
                                     rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64,
                                                       beta_fast=4.0, beta_slow=1.0)),
        tokenizers.qwen2, seed=3, pre="qwen2", eos=(502,),
        llamacpp_without="yarn beta_fast",  # written, but not read for Qwen2: it takes 32
        ablations=ROPE | QKV_BIAS | {
            "yarn frequencies": {"rope_scaling": None},
            "yarn attention factor": FromConfig(lambda c: {"rope_scaling": {**c.rope_scaling, "attention_factor": 1.0}}),
            "yarn beta_fast": FromConfig(lambda c: {"rope_scaling": {**c.rope_scaling, "beta_fast": 32.0}})})
    moe = {"norm_topk_prob": FromConfig(lambda c: {"norm_topk_prob": not c.norm_topk_prob}),
           "second expert": {"num_experts_per_tok": 1}}
    shared = {"shared expert": zero("shared_expert.down_proj.weight"), "shared expert's gate": shared_gate_open}
    yield Family(
        "qwen2moe", hf.Qwen2MoeConfig(**common(), **QWEN, num_experts=4, num_experts_per_tok=2, norm_topk_prob=False,
                                      moe_intermediate_size=32, shared_expert_intermediate_size=48, rope_theta=1000000.0,
                                      max_position_embeddings=256),
        tokenizers.qwen2, seed=3, pre="qwen2", eos=(502,),
        ablations=ROPE | UNTIED | QKV_BIAS | moe | shared)
    yield Family(
        "qwen2moe-sparse", hf.Qwen2MoeConfig(**common(), **QWEN, num_experts=4, num_experts_per_tok=2, norm_topk_prob=False,
                                             moe_intermediate_size=32, shared_expert_intermediate_size=32, decoder_sparse_step=2,
                                             tie_word_embeddings=True, max_position_embeddings=256),
        tokenizers.qwen2, seed=6, pre="qwen2", eos=(502,),
        convert_error="ValueError: Can not map tensor 'model.layers.0.mlp.down_proj.weight'",
        ablations=ROPE | QKV_BIAS | moe | shared)
    yield Family(
        "qwen3", hf.Qwen3Config(**common(), **QWEN, head_dim=16, rope_theta=1000000.0, max_position_embeddings=256,
                                tie_word_embeddings=True),
        tokenizers.qwen3, seed=78, pre="qwen2", eos=(502, 500),
        ablations=ROPE | QK_NORM)
    yield Family(
        "qwen3moe", hf.Qwen3MoeConfig(**common(), **QWEN, head_dim=16, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True,
                                      moe_intermediate_size=32, rope_theta=1000000.0, max_position_embeddings=256,
                                      tie_word_embeddings=True),
        tokenizers.qwen3_tools, seed=89, pre="qwen2", eos=(502, 500),
        ablations=ROPE | QK_NORM | moe)
    gemma = dict(bos_token_id=2, eos_token_id=1, pad_token_id=0, head_dim=16, max_position_embeddings=256)
    yield Family(
        "gemma", hf.GemmaConfig(**common(kv=1, inter=64, vocab=520), **gemma),
        tokenizers.gemma1, seed=1, dtype="float32", embed=0.12, gain=2.5, eos=(1,),
        ablations=ROPE | GEMMA)
    yield Family(
        "gemma2", hf.Gemma2Config(**common(inter=64, layers=3, vocab=520), **gemma, query_pre_attn_scalar=16,
                                  attn_logit_softcapping=3.0, final_logit_softcapping=6.0, sliding_window=WINDOW),
        tokenizers.gemma2, seed=7, embed=0.06, final_norm=4.0, eos=(1, 107),
        ablations=ROPE | GEMMA | POST_NORMS | ALL_SLIDING | {
            "sliding window": {"sliding_window": 4096}, "attention softcap": {"attn_logit_softcapping": None},
            "final softcap": {"final_logit_softcapping": None}, "query_pre_attn_scalar": {"query_pre_attn_scalar": 64},
            "pre-feed-forward norm": identity("pre_feedforward_layernorm")})
    gemma3 = GEMMA | POST_NORMS | QK_NORM | {"two rope bases": global_theta_everywhere, "rope": {
        "rope_theta": 1e30, "rope_local_base_freq": 1e30}}
    yield Family(
        "gemma3", hf.Gemma3TextConfig(**common(heads=2, kv=1, inter=32, layers=7, vocab=520), **gemma, query_pre_attn_scalar=16,
                                      sliding_window=WINDOW, rope_theta=1000.0, rope_local_base_freq=100.0),
        tokenizers.gemma3, seed=2, embed=0.06, final_norm=4.0, eos=(1, 107),
        generation=dict(cache_implementation="hybrid", do_sample=True, pad_token_id=0, top_k=64, top_p=0.95),
        ablations=gemma3 | ALL_SLIDING | {
            "sliding window": {"sliding_window": 4096}, "query_pre_attn_scalar": {"query_pre_attn_scalar": 64}})
    yield Family(
        "gemma3-vision", hf.Gemma3Config(
            text_config=hf.Gemma3TextConfig(**common(heads=2, kv=1, inter=32, layers=6, vocab=528), head_dim=16,
                                            query_pre_attn_scalar=16, sliding_window=WINDOW,
                                            rope_scaling=dict(rope_type="linear", factor=8.0)),
            vision_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8,
                               patch_size=4, vision_use_head=False, model_type="siglip_vision_model"),
            mm_tokens_per_image=4, boi_token_index=519, eoi_token_index=520, image_token_index=518, eos_token_id=[1, 107]),
        tokenizers.gemma3_vision, seed=6, embed=0.06, final_norm=4.0, eos=(1, 107), edit=_google_gemma3,
        ablations={k: v for k, v in gemma3.items() if k != "rope"} | {
            "linear rope scaling": {"text_config": {"rope_scaling": None}},
            "sliding window": {"text_config": {"sliding_window": 4096}}})
    yield Family(
        "phi3", hf.Phi3Config(**common(vocab=528), bos_token_id=1, eos_token_id=512, pad_token_id=512, rms_norm_eps=1e-5,
                              max_position_embeddings=256, original_max_position_embeddings=256, sliding_window=WINDOW),
        tokenizers.phi3, seed=8, eos=(512, 513, 519),
        llamacpp_without="sliding window",  # written, but switched off where llama.cpp loads it
        ablations=ROPE | UNTIED | {"sliding window": {"sliding_window": None}})
    yield Family(
        # As Phi-4-mini: a byte-level vocabulary, a tied head, three quarters of each head rotated.
        "phi4-mini", hf.Phi3Config(
            **common(heads=2, kv=1), bos_token_id=500, eos_token_id=500, pad_token_id=500, tie_word_embeddings=True,
            rms_norm_eps=1e-5, max_position_embeddings=128, original_max_position_embeddings=32, partial_rotary_factor=0.75,
            sliding_window=262144, rope_scaling=dict(type="longrope", short_factor=[1.0, 1.05, 1.1, 1.2, 1.3, 1.4],
                                                     long_factor=[1.0, 1.5, 2.0, 3.0, 5.0, 8.0])),
        tokenizers.phi4, seed=2, pre="gpt-2", eos=(500,), also_short=True,
        llamacpp_without="short factors",  # it chooses by the size of the context, 256 at least, not by the sequence
        ablations=ROPE | {
            "short factors": FromConfig(lambda c: {
                "rope_scaling": {**c.rope_scaling, "short_factor": c.rope_scaling["long_factor"]}}),
            "long factors": FromConfig(lambda c: {
                "rope_scaling": {**c.rope_scaling, "long_factor": c.rope_scaling["short_factor"]}}),
            "attention factor": FromConfig(lambda c: {"rope_scaling": {**c.rope_scaling, "attention_factor": 1.0}}),
            "partial rotary": FromConfig(lambda c: {"partial_rotary_factor": 1.0, "rope_scaling": {
                **c.rope_scaling, "long_factor": [*c.rope_scaling["long_factor"], 8.0, 8.0],
                "short_factor": [*c.rope_scaling["short_factor"], 1.4, 1.4]}})})
    yield Family(
        "gpt2", hf.GPT2Config(n_embd=32, n_head=4, n_layer=2, n_positions=96, vocab_size=512, bos_token_id=500, eos_token_id=500),
        tokenizers.gpt2, seed=15, edit=lambda c: {**c, "n_ctx": 96},  # as gpt2's own file has it; the converter needs it
        dtype="float32", pre="gpt-2", eos=(500,), embed=0.2, gain=2.5,
        ablations={"positions": zero("wpe.weight"), "attention biases": zero("c_attn.bias"),
                   "other biases": zero("c_proj.bias", "c_fc.bias"),
                   "norm biases": zero("ln_1.bias", "ln_2.bias", "ln_f.bias"), "gelu": activation("relu")})
