"""Goldens of formats/gguf/ftype: what llama-quantize stores each tensor of a model as.

    PYTHONPATH=LLAMA.CPP/gguf-py python ftype_goldens.py LIBS LLAMA.CPP OUT

LIBS is the folder that llamaquant.py names, LLAMA.CPP the source of llama.cpp v0.5.0, OUT formats/gguf/ftype/testdata.

models.json.gz: GGUF files are made of the shapes below, with holes for weights, and the real quantizer goes through each
with dry_run; the types are read off what it logs. A case is written as a recipe (tensors of no layer, tensors of layers
from..to) so that the test can make the same list, and types as runs of layers.

snapshots.json.gz: of LLAMA.CPP/tests/snapshots, what its own test expects of real models, those whose tensors follow from
the numbers in the file: the recipe is here, the expectation theirs.
"""

import copy
import gzip
import json
import re
import sys
import tempfile
from pathlib import Path

import gguf
import llamaquant

llama = llamaquant.Llama(sys.argv[1])
source, out = Path(sys.argv[2]), Path(sys.argv[3])
out.mkdir(parents=True, exist_ok=True)

ALL = list(llamaquant.FTYPES)
WIDE = 512  # columns that any block divides


def attention(cols=WIDE, q=WIDE, kv=128):
    return [["attn_norm.weight", [cols]], ["attn_q.weight", [q, cols]], ["attn_k.weight", [kv, cols]], ["attn_v.weight", [kv, cols]],
            ["attn_output.weight", [cols, q]], ["ffn_norm.weight", [cols]]]  # fmt: skip


def dense(cols=WIDE, ff=768):
    return [["ffn_gate.weight", [ff, cols]], ["ffn_up.weight", [ff, cols]], ["ffn_down.weight", [cols, ff]]]


def experts(n, cols=WIDE, ff=256):
    return [["ffn_gate_inp.weight", [n, cols]], ["ffn_gate_exps.weight", [n, ff, cols]], ["ffn_up_exps.weight", [n, ff, cols]],
            ["ffn_down_exps.weight", [n, cols, ff]]]  # fmt: skip


def shared(cols=WIDE, ff=256):
    return [["ffn_gate_inp_shexp.weight", [1, cols]], ["ffn_gate_shexp.weight", [ff, cols]], ["ffn_up_shexp.weight", [ff, cols]],
            ["ffn_down_shexp.weight", [cols, ff]]]  # fmt: skip


def outer(cols=WIDE, tied=False, vocab=64):
    return [["token_embd.weight", [vocab, cols]], ["output_norm.weight", [cols]]] + ([] if tied else [["output.weight", [vocab, cols]]])


def case(name, arch="llama", layers=8, heads=8, kv_heads=4, n_experts=0, glob=None, layer=None, kv=None, runs=None):
    numbers = {"block_count": layers, "context_length": 128, "embedding_length": WIDE, "feed_forward_length": 768, "attention.head_count": heads,
               "attention.head_count_kv": kv_heads}  # fmt: skip
    if n_experts:
        numbers |= {"expert_count": n_experts, "expert_used_count": 2}
    numbers |= kv or {}
    if layer is None:
        layer = attention() + (experts(n_experts) if n_experts else dense())
    return {"name": name, "arch": arch, "kv": numbers, "outer": glob or outer(), "layer": [(t + [0, layers])[:4] for t in layer],
            "runs": runs or [{"type": t} for t in ALL]}  # fmt: skip


def with_imatrix(types=ALL):
    return [{"type": t} for t in types] + [{"type": t, "imatrix": True} for t in types]


def cases():
    for n in range(2, 101):
        yield case(f"{n} layers", layers=n, runs=with_imatrix() if n in (8, 33) else None)
    for n in (3, 32, 80):
        for heads, kv_heads in ((8, 8), (8, 2), (8, 1), (12, 4)):
            yield case(f"{n} layers, {heads} heads, {kv_heads} of keys", layers=n, heads=heads, kv_heads=kv_heads, runs=with_imatrix())
    yield case("tied", glob=outer(tied=True), runs=with_imatrix())
    yield case("eight experts", layers=17, n_experts=8, runs=with_imatrix())
    yield case("eight experts, 4 heads to a key", layers=32, n_experts=8, kv_heads=2)
    yield case("four experts", layers=9, n_experts=4)
    yield case("qwen2moe", arch="qwen2moe", layers=24, n_experts=60, layer=attention() + experts(60) + shared(),
               kv={"expert_feed_forward_length": 256, "expert_shared_feed_forward_length": 256})  # fmt: skip
    yield case("qwen3moe", arch="qwen3moe", layers=12, n_experts=16, kv={"expert_feed_forward_length": 256})
    yield case("tied, eight experts", n_experts=8, glob=outer(tied=True))
    yield case("experts in some layers", layers=20, n_experts=16,
               layer=attention() + [t + [0, 5] for t in dense()] + [t + [5, 20] for t in experts(16)])  # fmt: skip
    for n in (24, 80):
        yield case(f"qwen2, {n} layers", arch="qwen2", layers=n, kv_heads=8, layer=attention() + dense() + [["attn_q.bias", [WIDE]]])
        yield case(f"olmo, {n} layers", arch="olmo", layers=n, kv={"attention.layer_norm_epsilon": 1e-5})
    yield case("jais2", arch="jais2", layers=68, kv={"attention.layer_norm_epsilon": 1e-5})
    qkv = [["attn_norm.weight", [WIDE]], ["attn_qkv.weight", [768, WIDE]], ["attn_qkv.bias", [768]], ["attn_output.weight", [WIDE, WIDE]],
           ["ffn_up.weight", [768, WIDE]], ["ffn_down.weight", [WIDE, 768]]]  # fmt: skip
    for n in (12, 33):
        yield case(f"gpt2, {n} layers", arch="gpt2", layers=n, layer=qkv, glob=outer(tied=True) + [["position_embd.weight", [128, WIDE]]],
                   kv={"attention.layer_norm_epsilon": 1e-5})  # fmt: skip
        yield case(f"falcon, {n} layers", arch="falcon", layers=n, layer=qkv, kv={"attention.layer_norm_epsilon": 1e-5}, runs=with_imatrix())
        yield case(f"phi3, {n} layers", arch="phi3", layers=n, layer=qkv)
        yield case(f"gemma2, {n} layers", arch="gemma2", layers=n, glob=outer(tied=True), layer=attention() + dense() + [["post_ffw_norm.weight", [WIDE]]],
                   kv={"attention.key_length": 64, "attention.value_length": 64, "attention.sliding_window": 64})  # fmt: skip
    for cols in (32, 64, 96, 100, 288, 1):
        for tied in (False, True):
            yield case(f"rows of {cols}" + (", tied" if tied else ""), layers=8, glob=outer(cols, tied), layer=attention(cols, 512, 128) + dense(cols, cols))
    flags = [
        {"pure": True},
        {"output": "Q8_0"},
        {"output": "F16"},
        {"embedding": "Q8_0"},
        {"embedding": "F32", "output": "Q4_0"},
        {"leave_output": True},
        {"pure": True, "output": "Q5_K", "embedding": "Q6_K"},
        {"overrides": [["attn_v", "Q8_0"], ["blk\\.[0-2]\\.", "Q6_K"], ["ffn_", "F16"]]},
        {"overrides": [["token_embd", "Q5_1"], ["output", "BF16"]], "pure": True},
        {"overrides": [["BLK\\.1\\.ffn_(up|down)", "MXFP4"], ["^output\\.weight$", "F32"]], "imatrix": True},
        {"overrides": [["per_layer", "Q4_0"]], "embedding": "Q8_0"},
    ]
    runs = [{"type": t} | f for t in ("q4_k_m", "q3_k_l", "q8_0", "iq4_xs", "mxfp4", "q4_0") for f in flags]
    yield case("flags", runs=runs, glob=outer() + [["per_layer_token_embd.weight", [64, WIDE]]])
    yield case("flags, tied", runs=runs, glob=outer(tied=True))
    wide = [r for r in runs[:11] if r.get("output") != "Q5_K"]  # which the quantizer would cut short
    yield case("flags, rows of 96", runs=wide, glob=outer(96), layer=attention(96) + dense(96, 96))


def expand(c):
    for name, shape in c["outer"]:
        yield name, shape
    for name, shape, first, last in c["layer"]:
        for i in range(first, last):
            yield f"blk.{i}.{name}", shape


def write(path, c):
    w = gguf.GGUFWriter(path, c["arch"])
    for key, value in c["kv"].items():
        (w.add_float32 if isinstance(value, float) else w.add_uint32)(f"{c['arch']}.{key}", value)
    if "attention.layer_norm_epsilon" not in c["kv"]:
        w.add_float32(f"{c['arch']}.attention.layer_norm_rms_epsilon", 1e-5)
    size = 0
    for name, shape in expand(c):
        n = 4
        for d in shape:
            n *= d
        w.add_tensor_info(name, shape, gguf.np.dtype("float32"), n)
        size += -(-n // 32) * 32
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    w.close()
    with open(path, "r+b") as f:
        end = f.seek(0, 2)
        f.truncate(-(-end // 32) * 32 + size)


LINE = re.compile(r"^\[ *\d+/ *\d+\] (\S+) +- \[[^\]]*\], type = +(\w+), size = .*?(?:\((\w+)\))?$", re.M)


def runs_of(layers):
    """{"Q4_K": [0, 1, 2, 5]} -> "Q4_K 0-2 5"."""
    parts = []
    for t, ls in layers.items():
        spans = []
        for i in ls:
            if spans and spans[-1][1] == i - 1:
                spans[-1][1] = i
            else:
                spans.append([i, i])
        parts.append(t + " " + " ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans))
    return ", ".join(parts)


def compact(types):
    """Tensors that are alike are one entry: their name without the layer, and which layers are what."""
    out, by = {}, {}
    for name, t in types.items():
        if m := re.match(r"blk\.(\d+)\.(.*)", name):
            by.setdefault(m[2], {}).setdefault(t, []).append(int(m[1]))
        else:
            out[name] = t
    for name, layers in by.items():
        out["blk." + name] = runs_of(layers)
    return out


def dump(name, what):
    with open(out / name, "wb") as f, gzip.GzipFile(fileobj=f, mode="wb", mtime=0, filename="") as z:
        z.write(json.dumps(what, separators=(",", ":")).encode())


def real():
    """The models of tests/snapshots whose tensors follow from what is known of their families; vectors are left out."""

    def model(name, arch, layers, glob, layer, heads, kv_heads, n_experts=0):
        c = case(name, arch, layers, heads, kv_heads, n_experts, glob, layer, runs=[None])
        del c["runs"]
        return c

    yield model("meta-llama-3.1-70b-instruct", "llama", 80, outer(8192), attention(8192, 8192, 1024) + dense(8192, 28672), 64, 8)
    yield model("qwen3-0.6b", "qwen3", 28, outer(1024), attention(1024, 2048, 1024) + dense(1024, 3072), 16, 8)
    yield model("qwen3-14b", "qwen3", 40, outer(5120), attention(5120, 5120, 1024) + dense(5120, 17408), 40, 8)
    yield model("gemma-3-4b-it", "gemma3", 34, outer(2560, tied=True), attention(2560, 2048, 1024) + dense(2560, 10240), 8, 4)
    yield model("gpt-oss-120b", "gpt-oss", 36, outer(2880), attention(2880, 4096, 512) + experts(128, 2880, 2880), 64, 8, 128)
    yield model("glm-4.6v", "glm4moe", 46, outer(4096),
                attention(4096, 12288, 1024) + [t + [0, 1] for t in dense(4096, 10944)] + [t + [1, 46] for t in experts(128, 4096, 1408)]
                + [t + [1, 46] for t in shared(4096, 1408)[1:]], 96, 8, 128)  # fmt: skip
    latent = [["attn_q_a.weight", [1536, 7168]], ["attn_q_b.weight", [24576, 1536]], ["attn_kv_a_mqa.weight", [576, 7168]],
              ["attn_k_b.weight", [128, 512, 128]], ["attn_v_b.weight", [128, 128, 512]], ["attn_output.weight", [7168, 16384]]]  # fmt: skip
    yield model("deepseek-v3.1", "deepseek2", 61, outer(7168),
                latent + [t + [0, 3] for t in dense(7168, 18432)] + [t + [3, 61] for t in experts(256, 7168, 2048)]
                + [t + [3, 61] for t in shared(7168, 2048)[1:]], 128, 1, 256)  # fmt: skip


def snapshots():
    for c in real():
        text = (source / "tests" / "snapshots" / (c["name"] + ".schema")).read_text()
        numbers = dict(re.findall(r"(\w+)=(\d+)", text.splitlines()[1]))
        known = {"n_layer": "block_count", "n_head": "attention.head_count", "n_head_kv": "attention.head_count_kv", "n_expert": "expert_count"}
        for key, ours in known.items():
            assert int(numbers.get(key, 0)) == c["kv"].get(ours, 0), (c["name"], key)
        names = {n for n, _ in expand(c)}
        c["sections"] = []
        for name, base, body in re.findall(r"^\[(\w+)\] (\w+)\n((?:\S+ \S+\n)*)", text, re.M):
            name = name.lower().replace("mxfp4_moe", "mxfp4")
            if name not in ALL:
                continue
            types = {tensor: t.upper() for tensor, t in (line.split() for line in body.splitlines())}
            assert set(types) <= names, (c["name"], set(types) - names)
            c["sections"].append({"type": name, "base": base.upper(), "types": compact(types)})
        assert len(c["sections"]) == len(ALL), c["name"]
        yield c


def main():
    dump("snapshots.json.gz", list(snapshots()))
    done = []
    with tempfile.TemporaryDirectory() as tmp:
        for c in cases():
            path = Path(tmp, "x.gguf")
            write(path, c)
            c["runs"] = copy.deepcopy(c["runs"])  # some cases share them
            for r in c["runs"]:
                flags = {k: v for k, v in r.items() if k != "type"}
                if flags.pop("imatrix", False):
                    flags["imatrix"] = {"none": [1.0]}
                log = llama.quantize(path, Path(tmp, "y.gguf"), r["type"], dry=True, **flags)
                types = {name: (to or was).upper() for name, was, to in LINE.findall(log)}
                assert set(types) == {n for n, _ in expand(c)}, (c["name"], r, log[-3000:])
                r["types"] = compact(types)
            done.append(c)
            print(c["name"], file=sys.stderr)
    dump("models.json.gz", done)


main()
