"""Goldens of the encoders of formats/gguf/ggml, made with ggml itself.

    python ggml_kinds.py LIBGGML_BASE STORIES_HF OUT

LIBGGML_BASE is libggml-base.so of llama.cpp v0.5.0 (npm @node-llama-cpp/linux-x64 3.22.1 has it), STORIES_HF stories260K as
a Hugging Face directory (cmd/nibble/demo/stories260K is one), OUT is formats/gguf/ggml/testdata.

kinds.json has hashes of the blocks of rows that the Go test makes again by itself: the same arithmetic on the same
integers, see rows_test.go.
"""

import ctypes as C
import hashlib
import json
import struct
import sys
from pathlib import Path

import numpy as np

lib = C.CDLL(sys.argv[1])
out = Path(sys.argv[3])
lib.ggml_type_name.restype = C.c_char_p
lib.ggml_type_size.restype = C.c_size_t
lib.ggml_blck_size.restype = C.c_int64
lib.ggml_quantize_chunk.restype = C.c_size_t
lib.ggml_quantize_chunk.argtypes = [C.c_int, C.c_void_p, C.c_void_p, C.c_int64, C.c_int64, C.c_int64, C.c_void_p]

# The types that nibble writes, and those of them that mind an importance matrix.
TYPES = [2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23, 34, 35, 39]
WEIGHTED = [2, 3, 6, 7, 10, 11, 12, 13, 14, 20, 23]

COLS = 512
f32 = np.float32


def words(seed, n):
    """splitmix64: word i is a function of seed + i."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def unit(w):
    """Evenly from -1 to 1, 24 bits."""
    return ((w >> np.uint64(40)).astype(np.int64) - (1 << 23)).astype(f32) * f32(2**-23)


def bell(w):
    """Nearly normal, from -4 to 4: the sum of the four parts of a word."""
    parts = sum((w >> np.uint64(s) & np.uint64(0xFFFF)).astype(np.int64) for s in (0, 16, 32, 48))
    return (parts - 2 * 65535).astype(f32) * f32(2**-15)


def signed(w, v):
    return np.where((w & np.uint64(1)).astype(bool), -v, v).astype(f32)


def power(k):
    return f32(2.0**k)


def outlier(w, r):
    x = bell(w) * power(-10)
    x[r % COLS] = 100 if r >> 32 & 1 else -100
    return x


def below_power(w, r):
    """The largest is a few units in the last place below a power of two, where a logarithm is rounded up to it."""
    k = r % 250 - 124
    x = unit(w) * power(k - 2)
    x[::32] = np.array([(k + 127 << 23) - 1 - (r >> 32) % 64], np.uint32).view(f32)[0]
    return x


def bits(w):
    b = (w >> np.uint64(32)).astype(np.uint32)
    return np.where(b & 0x7F800000 == 0x7F800000, b & 0xBFFFFFFF, b).astype(np.uint32).view(f32)


# What a row is of: a word for each value, w, and one for the row, r.
KINDS = {
    "uniform": lambda w, r: unit(w),
    "normal": lambda w, r: bell(w),
    "heavy": lambda w, r: bell(w) / (unit(w * np.uint64(5)) + f32(1 + 2**-16)),
    "outlier": outlier,
    "constant": lambda w, r: np.full(COLS, unit(np.array([r], np.uint64))[0]),
    "signs": lambda w, r: signed(w, unit(np.array([r], np.uint64))[0]),
    "zeros": lambda w, r: signed(w, f32(0)),
    "sparse": lambda w, r: np.where(w >> np.uint64(32) & np.uint64(7) == 0, unit(w), signed(w, f32(0))),
    "steps": lambda w, r: signed(w, ((w >> np.uint64(8)) % np.uint64(19)).astype(f32)) * power(r % 9 - 4),
    "bits": lambda w, r: bits(w),
    "subnormal": lambda w, r: ((w >> np.uint64(32)).astype(np.uint32) & np.uint32(0x807FFFFF)).view(f32),
    "huge": lambda w, r: bell(w) * f32(1e30),
    "largest": lambda w, r: bell(w) * power(125),
    "tiny": lambda w, r: bell(w) * power(-49 - r % 4),
    "small": lambda w, r: bell(w) * power(-14 - r % 14),
    "below power": below_power,
}


def rows(n):
    """n rows of COLS values, of each kind in turn."""
    row = words(1 << 63, n)
    return np.stack([list(KINDS.values())[i % len(KINDS)](words(i << 20, COLS), int(r)) for i, r in enumerate(row)])


def importance():
    """For COLS columns: squares, some of them large, some zero, a whole block too."""
    w = words(1 << 62, COLS)
    v = bell(w) * bell(w)
    low = w & np.uint64(15)
    v = np.where(low == 0, f32(0), np.where(low == 1, v * f32(1e6), v)).astype(f32)
    v[64:96] = 0
    return v


def quantize(typ, x, weights=None):
    x = np.ascontiguousarray(x, f32)
    q = C.create_string_buffer(x.size // lib.ggml_blck_size(typ) * lib.ggml_type_size(typ))
    lib.ggml_quantize_chunk(typ, x.ctypes.data, q, 0, *x.shape, None if weights is None else weights.ctypes.data)
    return q.raw


def main():
    assert sys.byteorder == "little"
    sha256 = lambda b: hashlib.sha256(b).hexdigest()
    x = rows(512)
    assert x.dtype == f32 and np.isfinite(x).all()
    model = Path(sys.argv[2], "model.safetensors").read_bytes()
    real = np.frombuffer(model[8 + struct.unpack("<Q", model[:8])[0]:], f32)
    real = real[: real.size // COLS * COLS].reshape(-1, COLS)
    v = importance()
    encoded = {}
    for typ in TYPES:
        name = lib.ggml_type_name(typ).decode().upper()
        for weights in [None, v] if typ in WEIGHTED else [None]:
            encoded[name + ("" if weights is None else " weighted")] = {
                "kinds": {k: sha256(quantize(typ, x[i::len(KINDS)], weights))[:16] for i, k in enumerate(KINDS)},
                "all": sha256(quantize(typ, x, weights)),
                "real": sha256(quantize(typ, real, weights)),
            }
    golden = {"rows": sha256(x.tobytes()), "importance": sha256(v.tobytes()), "encoded": encoded}
    out.joinpath("kinds.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
