"""Goldens of formats/gguf and formats/gguf/ggml, made with ggml itself and with gguf-py.

    PYTHONPATH=LLAMA.CPP/gguf-py python gguf_goldens.py LIBGGML_BASE OUT [ANAMNESIS...]

LIBGGML_BASE is libggml-base.so of llama.cpp v0.5.0 (npm @node-llama-cpp/linux-x64 3.22.1 has it), LLAMA.CPP its source,
OUT is the formats/gguf folder, and ANAMNESIS, if given, are files of tests/fixtures/gguf_reference of PCfVW/anamnesis,
from each of which a slice is cut.
"""

import ctypes as C
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf.scripts import gguf_convert_endian

lib = C.CDLL(sys.argv[1])
out = Path(sys.argv[2])


def fn(name, restype, *argtypes):
    f = getattr(lib, name)
    f.restype, f.argtypes = restype, argtypes
    return f


class InitParams(C.Structure):
    _fields_ = [("mem_size", C.c_size_t), ("mem_buffer", C.c_void_p), ("no_alloc", C.c_bool)]


ggml_init = fn("ggml_init", C.c_void_p, InitParams)
ggml_new_tensor = fn("ggml_new_tensor", C.c_void_p, C.c_void_p, C.c_int, C.c_int, C.POINTER(C.c_int64))
ggml_set_name = fn("ggml_set_name", C.c_void_p, C.c_void_p, C.c_char_p)
ggml_type_name = fn("ggml_type_name", C.c_char_p, C.c_int)
ggml_type_size = fn("ggml_type_size", C.c_size_t, C.c_int)
ggml_blck_size = fn("ggml_blck_size", C.c_int64, C.c_int)
quantize_init = fn("ggml_quantize_init", None, C.c_int)
quantize_chunk = fn("ggml_quantize_chunk", C.c_size_t, C.c_int, C.c_void_p, C.c_void_p, C.c_int64, C.c_int64, C.c_int64, C.c_void_p)
gguf_init_empty = fn("gguf_init_empty", C.c_void_p)
gguf_add_tensor = fn("gguf_add_tensor", None, C.c_void_p, C.c_void_p)
gguf_set_tensor_data = fn("gguf_set_tensor_data", None, C.c_void_p, C.c_char_p, C.c_void_p)
gguf_write_to_file = fn("gguf_write_to_file", C.c_bool, C.c_void_p, C.c_char_p, C.c_bool)
gguf_set_arr_data = fn("gguf_set_arr_data", None, C.c_void_p, C.c_char_p, C.c_int, C.c_void_p, C.c_size_t)
gguf_set_arr_str = fn("gguf_set_arr_str", None, C.c_void_p, C.c_char_p, C.POINTER(C.c_char_p), C.c_size_t)

# type -> (id, ctypes, least, greatest); what the Go test expects is spelled out there.
NUMBERS = {
    "u8": (0, C.c_uint8, 0, 2**8 - 1),
    "i8": (1, C.c_int8, -(2**7), 2**7 - 1),
    "u16": (2, C.c_uint16, 0, 2**16 - 1),
    "i16": (3, C.c_int16, -(2**15), 2**15 - 1),
    "u32": (4, C.c_uint32, 0, 2**32 - 1),
    "i32": (5, C.c_int32, -(2**31), 2**31 - 1),
    "f32": (6, C.c_float, -0.1, 3.4028234663852886e38),
    "u64": (10, C.c_uint64, 0, 2**64 - 1),
    "i64": (11, C.c_int64, -(2**63), 2**63 - 1),
    "f64": (12, C.c_double, -0.1, 1.7976931348623157e308),
}
STRINGS = ["", "a", "▁naïve", "\n\t\"\\"]

# name, ggml type, dimensions innermost first
TENSORS = [
    ("token_embd.weight", 0, [32, 3]),
    ("f16", 1, [5]),
    ("bf16", 30, [7, 3, 2]),
    ("q8_0", 8, [64, 2]),
    ("q4_k", 12, [256, 2]),
    ("four", 26, [2, 1, 3, 2]),
    ("f64", 28, [1]),
    ("empty", 0, [0, 4]),
    ("nvfp4", 40, [64]),
]


def body(i, size):
    return bytes((7 * i + 3 * j) % 251 for j in range(size))


def by_ggml():
    ctx = ggml_init(InitParams(1 << 20, None, True))
    g = gguf_init_empty()
    for name, (typ, ct, lo, hi) in NUMBERS.items():
        fn(f"gguf_set_val_{name}", None, C.c_void_p, C.c_char_p, ct)(g, f"one.{name}".encode(), hi)
        gguf_set_arr_data(g, f"many.{name}".encode(), typ, (ct * 3)(lo, hi, 1), 3)
        gguf_set_arr_data(g, f"none.{name}".encode(), typ, (ct * 1)(), 0)
    set_bool = fn("gguf_set_val_bool", None, C.c_void_p, C.c_char_p, C.c_bool)
    set_bool(g, b"one.bool", True)
    set_bool(g, b"one.false", False)
    gguf_set_arr_data(g, b"many.bool", 7, (C.c_bool * 3)(False, True, True), 3)
    gguf_set_arr_data(g, b"none.bool", 7, (C.c_bool * 1)(), 0)
    set_str = fn("gguf_set_val_str", None, C.c_void_p, C.c_char_p, C.c_char_p)
    set_str(g, b"one.str", STRINGS[2].encode())
    set_str(g, b"one.empty", b"")
    gguf_set_arr_str(g, b"many.str", (C.c_char_p * 4)(*[s.encode() for s in STRINGS]), 4)
    gguf_set_arr_str(g, b"none.str", (C.c_char_p * 1)(), 0)
    keep = []
    for i, (name, typ, dims) in enumerate(TENSORS):
        t = ggml_new_tensor(ctx, typ, len(dims), (C.c_int64 * len(dims))(*dims))
        ggml_set_name(t, name.encode())
        gguf_add_tensor(g, t)
        size = int(np.prod(dims)) // ggml_blck_size(typ) * ggml_type_size(typ)
        data = C.create_string_buffer(body(i, size), max(size, 1))
        keep.append(data)
        gguf_set_tensor_data(g, name.encode(), C.cast(data, C.c_void_p))
    assert gguf_write_to_file(g, str(out / "testdata/ggml.gguf").encode(), False)


def by_gguf_py():
    w = gguf.GGUFWriter(out / "testdata/gguf-py.gguf", "llama")
    w.add_name("by gguf-py")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_array("tokenizer.ggml.tokens", ["<s>", "▁the", "é"])
    w.add_array("tokenizer.ggml.scores", [0.0, -1.5, -2.25])
    w.add_bool("tokenizer.ggml.add_bos_token", True)
    rng = np.random.default_rng(1)
    # gguf-py keeps a leading 1 that ggml's own writer would drop.
    w.add_tensor("blk.0.ffn_gate_inp_shexp.weight", rng.standard_normal((1, 8)).astype(np.float32))
    w.add_tensor("blk.0.attn_norm.weight", rng.standard_normal(5).astype(np.float16))
    x = rng.standard_normal((3, 64)).astype(np.float32)
    w.add_tensor("blk.0.attn_q.weight", gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q8_0),
                 raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def types():
    rows = [{"id": i, "name": ggml_type_name(i).decode(), "block": ggml_blck_size(i), "bytes": ggml_type_size(i)}
            for i in range(43)]
    (out / "testdata/types.json").write_text("[\n" + ",\n".join("  " + json.dumps(r) for r in rows) + "\n]\n")


def rows_of_floats():
    """Rows of 256 float32 that make a quantizer sweat, as an array [rows, 256]."""
    rng = np.random.default_rng(20261124)
    f = np.float32
    top = np.finfo(f).max
    rows = [rng.standard_normal(256) for _ in range(8)]
    rows += [rng.standard_t(2, 256) for _ in range(4)]  # heavy tails
    rows += [rng.standard_normal(256) * s for s in (1e-3, 1e-6, 1e-8, 1e4, 6.5e4, 1e7, 8e6)]
    rows += [rng.uniform(-1, 1, 256), np.full(256, 0.1), np.full(256, -3.0), np.zeros(256), np.full(256, -0.0)]
    rows += [np.arange(256) - 128, (np.arange(256) - 128) / 2, (np.arange(256) - 128) + 0.5]  # ties
    x = np.tile(np.arange(-127.5, 128, 8)[:32], 8).astype(f)
    x[::32] = 127  # d = 1: halves stay halves
    rows += [x, x * f(2**-10), np.where(np.arange(256) % 2, -top, top), np.where(np.arange(256) % 32, 0, -top)]
    rows += [rng.integers(-9, 10, 256) * 1e-45, rng.standard_normal(256) * 1e-39, rng.standard_normal(256) * 1e-37,
             np.where(np.arange(256) % 32, 1e-45, 2e-39), np.where(np.arange(256) % 32, -1e-40, 4e-38)]
    rows += [rng.standard_normal(256) * 2.0**-k for k in range(14, 26)]  # scales around f16's subnormals
    # scales exactly between two f16 values, even and odd below
    rows += [np.where(np.arange(256) % 32, rng.standard_normal(256), 127 * (1 + (2 * k + 1) * 2**-11)) for k in range(4)]
    return np.array([np.asarray(r, f) for r in rows])


# Every type that stores blocks: what dequantize_row_NAME is called after is ggml_type_name. Those that make no sense
# without an importance matrix get one of ones.
BLOCKS = [2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 29, 34, 35, 39, 40, 41, 42]
IMATRIX = {16, 17, 19, 29}


def quantize_row(typ, x):
    """The blocks of one row of 256 by ggml, or None where it aborts: it does so in a child process."""
    name = ggml_type_name(typ).decode()
    size = 256 // ggml_blck_size(typ) * ggml_type_size(typ)
    r, w = os.pipe()
    if os.fork() == 0:
        os.close(r)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.dup2(2, 1)  # it says "Oops"
        q = C.create_string_buffer(size)
        if name in ("q8_1", "q8_K"):  # of use at run time alone: no quantize_chunk
            fn(f"quantize_row_{name}_ref", None, C.c_void_p, C.c_void_p, C.c_int64)(x.ctypes.data, q, 256)
        else:
            ones = np.ones(256, np.float32)
            quantize_chunk(typ, x.ctypes.data, q, 0, 1, 256, ones.ctypes.data if typ in IMATRIX else None)
        os.write(w, q.raw)
        os._exit(0)
    os.close(w)
    with os.fdopen(r, "rb") as f:
        b = f.read()
    return b if os.wait()[1] == 0 else None


def dequantize(typ, b):
    """The values of blocks by ggml, every NaN made the same one."""
    name = ggml_type_name(typ).decode()
    n = len(b) // ggml_type_size(typ) * ggml_blck_size(typ)
    if name == "q8_1":  # ggml never does it; by its definition
        block = np.frombuffer(b, [("d", "<f2"), ("s", "<f2"), ("qs", "i1", 32)])
        y = (block["qs"].astype(np.float32) * block["d"].astype(np.float32)[:, None]).reshape(-1)
    else:
        y = np.empty(n, np.float32)
        fn(f"dequantize_row_{name}", None, C.c_void_p, C.c_void_p, C.c_int64)(b, y.ctypes.data, n)
    y[np.isnan(y)] = np.nan
    return y


def blocks():
    """ggml/testdata/NAME.bin: the rows of rows.bin as ggml's blocks. decoded.json: hashes of what ggml reads from them,
    and from 1024 rows of 256 in blocks of bytes that mean nothing."""
    x = np.ascontiguousarray(rows_of_floats())
    (out / "ggml/testdata/rows.bin").write_bytes(x.tobytes())
    decoded = {}
    for typ in BLOCKS:
        name = ggml_type_name(typ).decode().upper()
        per_row = 256 // ggml_blck_size(typ) * ggml_type_size(typ)
        quantize_init(typ)
        rows = [quantize_row(typ, row) for row in x]
        aborts = [i for i, b in enumerate(rows) if b is None]
        b = b"".join(r or bytes(per_row) for r in rows)
        y = dequantize(typ, b).reshape(len(x), 256)
        if typ not in (9, 15, 40, 41, 42) and name[:2] != "IQ":  # gguf-py has these both ways
            qt = gguf.GGMLQuantizationType(typ)
            with np.errstate(all="ignore"):
                back = gguf.quants.dequantize(np.frombuffer(b, np.uint8).reshape(len(x), -1), qt)
            assert np.array_equal(back, y, equal_nan=True), f"gguf-py and ggml disagree on {name}"
        (out / f"ggml/testdata/{name.lower()}.bin").write_bytes(b)
        noise = hashlib.shake_128(name.encode()).digest(1024 * per_row)
        sha256 = lambda values: hashlib.sha256(values.tobytes()).hexdigest()
        decoded[name] = {
            "aborts": aborts,
            "all": sha256(y),
            "rows": " ".join(sha256(row)[:8] for row in y),  # to find the one that differs
            "noise": sha256(dequantize(typ, noise)),
        }
    (out / "ggml/testdata/decoded.json").write_text(json.dumps(decoded, indent=1) + "\n")


def cut(path):
    """The first 2048 elements of a slice of a real model: same layout, [u32 type, elements, bytes, bytes], blocks, bfloat16."""
    b = Path(path).read_bytes()
    typ, n, size, _ = struct.unpack("<4I", b[:16])
    keep = 2048
    part = keep // ggml_blck_size(typ) * ggml_type_size(typ)
    (out / "ggml/testdata/anamnesis" / Path(path).name).write_bytes(
        struct.pack("<4I", typ, keep, part, 2 * keep) + b[16:16 + part] + b[16 + size:16 + size + 2 * keep])


# The blocks of ggml-common.h: runs of numbers of so many bytes. Where bytes are declared and ggml's dequantize functions
# read them as a number of the machine's own order (qh of Q5_0 and Q5_1, the signs and scales of IQ2_XXS and IQ3_XXS, the
# scales of IQ1_M), they are such a number here.
STRUCTS = {
    "Q1_0": "u2 16u1", "Q2_0": "u2 16u1", "Q4_0": "u2 16u1", "Q4_1": "u2 u2 16u1", "Q5_0": "u2 u4 16u1",
    "Q5_1": "u2 u2 u4 16u1", "Q8_0": "u2 32u1", "Q8_1": "u2 u2 32u1", "Q2_K": "16u1 64u1 u2 u2",
    "Q3_K": "32u1 64u1 12u1 u2", "Q4_K": "u2 u2 12u1 128u1", "Q5_K": "u2 u2 12u1 32u1 128u1",
    "Q6_K": "128u1 64u1 16u1 u2", "Q8_K": "u4 256u1 16u2", "IQ1_S": "u2 32u1 8u2", "IQ1_M": "32u1 16u1 4u2",
    "IQ2_XXS": "u2" + 8 * " 4u1 u4", "IQ2_XS": "u2 32u2 8u1", "IQ2_S": "u2 64u1 8u1 8u1", "IQ3_XXS": "u2 64u1 8u4",
    "IQ3_S": "u2 64u1 8u1 32u1 4u1", "IQ4_NL": "u2 16u1", "IQ4_XS": "u2 u2 4u1 128u1", "TQ1_0": "48u1 4u1 u2",
    "TQ2_0": "64u1 u2", "MXFP4": "u1 16u1", "NVFP4": "4u1 32u1", "BF16": "u2",
}
PLAIN = {"F32": "f4", "F16": "f2", "F64": "f8", "I8": "i1", "I16": "i2", "I32": "i4", "I64": "i8"}


def write_types(path, endian, names):
    """By gguf-py: a tensor of noise of each type, and metadata of every type. It swaps plain numbers by itself."""
    t = gguf.GGUFValueType
    w = gguf.GGUFWriter(path, "llama", endianess=endian)
    for name, (typ, _, lo, hi) in NUMBERS.items():
        w.add_key_value(f"one.{name}", hi, t(typ))
        w.add_key_value(f"many.{name}", [lo, hi, 1], t.ARRAY, sub_type=t(typ))
    w.add_bool("one.bool", True)
    w.add_array("many.bool", [False, True, True])
    w.add_string("one.str", STRINGS[2])
    w.add_array("many.str", STRINGS)
    for name in names:
        qt = gguf.GGMLQuantizationType[name]
        size = (32 if name in PLAIN else 256) // ggml_blck_size(qt) * ggml_type_size(qt)
        b = hashlib.shake_128(name.encode()).digest(size)
        if name in PLAIN:
            w.add_tensor(name, np.frombuffer(b, "<" + PLAIN[name]))
            continue
        block = np.frombuffer(b, np.dtype(",".join(STRUCTS[name].split())).newbyteorder("<"))
        assert block.itemsize == ggml_type_size(qt), name
        if endian == gguf.GGUFEndian.BIG:
            block = block.byteswap()
        w.add_tensor(name, np.frombuffer(block.tobytes(), np.uint8).reshape(1, -1), raw_dtype=qt)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def big_endian():
    """testdata/little.gguf and testdata/big.gguf: the same content in either byte order."""
    gguf.constants.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_1] = (32, 36)  # gguf-py is wrong about this one
    everything = [*PLAIN, *STRUCTS]
    write_types(out / "testdata/little.gguf", gguf.GGUFEndian.LITTLE, everything)
    write_types(out / "testdata/big.gguf", gguf.GGUFEndian.BIG, everything)
    # What gguf-py's own script can convert, it converts to the same.
    known = ["F32", "F16", "BF16", *(k.name for k in gguf_convert_endian.byteswap_tensors)]
    assert len(known) == 11
    with tempfile.TemporaryDirectory() as tmp:
        write_types(f"{tmp}/little.gguf", gguf.GGUFEndian.LITTLE, known)
        write_types(f"{tmp}/big.gguf", gguf.GGUFEndian.BIG, known)
        subprocess.run([sys.executable, gguf_convert_endian.__file__, f"{tmp}/little.gguf", "big"], input=b"YES\n", check=True,
                       capture_output=True)
        assert Path(tmp, "little.gguf").read_bytes() == Path(tmp, "big.gguf").read_bytes(), "gguf_convert_endian disagrees"


# What a split writer is told: keyword arguments of GGUFWriter.
SPLITS = [
    {}, {"split_max_tensors": 1}, {"split_max_tensors": 2}, {"split_max_tensors": 3}, {"split_max_tensors": 8},
    {"split_max_tensors": 7}, {"split_max_size": 1}, {"split_max_size": 1024}, {"split_max_size": 1023},
    {"split_max_size": 1025}, {"split_max_size": 1166}, {"split_max_size": 1165}, {"split_max_size": 10**9},
    {"split_max_tensors": 2, "split_max_size": 1200}, {"small_first_shard": True},
    {"small_first_shard": True, "split_max_tensors": 3}, {"small_first_shard": True, "split_max_size": 1024},
]
SPLIT_TENSORS = [("token_embd.weight", "F32", (4, 64)), ("a", "F16", (71,)), ("b", "Q8_0", (2, 64)), ("c", "I8", (3,)),
                 ("empty", "F32", (0, 4)), ("d", "Q4_K", (1, 256)), ("e", "F32", (1,)), ("f", "F16", (2, 3, 5))]


def splits():
    """testdata/whole.gguf, and splits.json: the files that gguf-py makes of its content, by their hashes."""
    rows = []
    for options in SPLITS:
        with tempfile.TemporaryDirectory() as tmp:
            w = gguf.GGUFWriter(f"{tmp}/m.x.gguf", "llama", **options)
            w.add_name("in parts")
            w.add_array("tokenizer.ggml.tokens", ["<s>", "▁the", "é"])
            for name, kind, shape in SPLIT_TENSORS:
                qt = gguf.GGMLQuantizationType[kind]
                size = int(np.prod(shape)) // ggml_blck_size(qt) * ggml_type_size(qt)
                b = hashlib.shake_128(name.encode()).digest(size)
                if kind in PLAIN:
                    w.add_tensor(name, np.frombuffer(b, PLAIN[kind]).reshape(shape))
                else:
                    w.add_tensor(name, np.frombuffer(b, np.uint8).reshape(*shape[:-1], -1), raw_dtype=qt)
            w.write_header_to_file()
            w.write_kv_data_to_file()
            w.write_tensors_to_file()
            w.close()
            files = sorted(Path(tmp).iterdir())
            if not options:
                (out / "testdata/whole.gguf").write_bytes(files[0].read_bytes())
            rows.append({"options": options, "files": {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}})
    (out / "testdata/splits.json").write_text("[\n" + ",\n".join(json.dumps(r, indent=1) for r in rows) + "\n]\n")


by_ggml()
by_gguf_py()
types()
big_endian()
splits()
blocks()
for path in sys.argv[3:]:
    cut(path)
