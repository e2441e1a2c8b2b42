"""llama-quantize of llama.cpp v0.5.0 as a function: llama_model_quantize of its library.

The library is libllama.v0.5.0.so in the folder `bins/linux-x64` of npm's @node-llama-cpp/linux-x64 3.22.1. What the tool
does around that call (tools/quantize/quantize.cpp) is here too: the mean squares of an importance matrix and the
entries of the metadata that it adds.
"""

import ctypes as C
import os
from pathlib import Path

import gguf
import numpy as np

GGML = {t.name: t.value for t in gguf.GGMLQuantizationType}
NONE = 43  # GGML_TYPE_COUNT

FTYPES = {
    "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13, "q4_k_s": 14,
    "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "q2_k_s": 21, "iq4_nl": 25, "iq4_xs": 30, "tq1_0": 36, "tq2_0": 37, "mxfp4": 38,
}  # fmt: skip


class Imatrix(C.Structure):
    _fields_ = [("name", C.c_char_p), ("data", C.POINTER(C.c_float)), ("size", C.c_size_t)]


class TypeOverride(C.Structure):
    _fields_ = [("pattern", C.c_char_p), ("type", C.c_int)]


class Value(C.Union):
    _fields_ = [("i64", C.c_int64), ("f64", C.c_double), ("bool", C.c_bool), ("str", C.c_char * 128)]


class KVOverride(C.Structure):
    _fields_ = [("tag", C.c_int), ("key", C.c_char * 128), ("value", Value)]


INT, STR = 0, 3


class Params(C.Structure):
    _fields_ = [
        ("nthread", C.c_int32),
        ("ftype", C.c_int),
        ("output_tensor_type", C.c_int),
        ("token_embedding_type", C.c_int),
        ("allow_requantize", C.c_bool),
        ("quantize_output_tensor", C.c_bool),
        ("only_copy", C.c_bool),
        ("pure", C.c_bool),
        ("keep_split", C.c_bool),
        ("dry_run", C.c_bool),
        ("imatrix", C.POINTER(Imatrix)),
        ("kv_overrides", C.POINTER(KVOverride)),
        ("tt_overrides", C.POINTER(TypeOverride)),
        ("prune_layers", C.POINTER(C.c_int32)),
        ("max_buf_size", C.c_size_t),
    ]


LOG = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)


class Llama:
    def __init__(self, folder):
        folder = Path(folder)
        for name in ("libggml-base.so", "libggml.v0.5.0.so"):
            C.CDLL(str(folder / name), mode=C.RTLD_GLOBAL)
        self.lib = C.CDLL(str(folder / "libllama.v0.5.0.so"), mode=C.RTLD_GLOBAL)
        self.lib.llama_model_quantize_default_params.restype = Params
        self.lib.llama_model_quantize.argtypes = [C.c_char_p, C.c_char_p, C.POINTER(Params)]
        self.lib.llama_model_quantize.restype = C.c_uint32
        self.text = []
        self.callback = LOG(lambda level, text, _: self.text.append(text.decode()))
        self.lib.llama_log_set(self.callback, None)
        self.lib.llama_backend_init()

    def quantize(self, inp, out, ftype, imatrix=None, imatrix_file="", datasets=(), chunks=0, output=None, embedding=None,
                 overrides=(), pure=False, leave_output=False, requantize=False, dry=False, threads=2):  # fmt: skip
        """Returns the log. imatrix has mean squares by name. Types are of ggml, in upper case."""
        p = self.lib.llama_model_quantize_default_params()
        p.nthread, p.ftype, p.pure, p.dry_run, p.allow_requantize = threads, FTYPES[ftype], pure, dry, requantize
        p.quantize_output_tensor = not leave_output
        if output:
            p.output_tensor_type = GGML[output]
        if embedding:
            p.token_embedding_type = GGML[embedding]
        if overrides:
            p.tt_overrides = (TypeOverride * (len(overrides) + 1))(*[(n.lower().encode(), GGML[t]) for n, t in overrides], (None, NONE))
        if imatrix:
            arrays = [np.ascontiguousarray(v, dtype=np.float32) for v in imatrix.values()]
            rows = [(n.encode(), v.ctypes.data_as(C.POINTER(C.c_float)), v.size) for n, v in zip(imatrix, arrays)]
            p.imatrix = (Imatrix * (len(rows) + 1))(*rows, (None, None, 0))
            kvs = [(STR, b"quantize.imatrix.file", Value(str=imatrix_file.encode()[:127]))]
            if datasets:
                kvs.append((STR, b"quantize.imatrix.dataset", Value(str=datasets[0].encode()[:127])))
            kvs.append((INT, b"quantize.imatrix.entries_count", Value(i64=len(imatrix))))
            if chunks > 0:
                kvs.append((INT, b"quantize.imatrix.chunks_count", Value(i64=chunks)))
            p.kv_overrides = (KVOverride * (len(kvs) + 1))(*[KVOverride(*kv) for kv in kvs], KVOverride())
        self.text.clear()
        rc = self.lib.llama_model_quantize(os.fsencode(inp), os.fsencode(out), C.byref(p))
        log = "".join(self.text)
        if rc != 0:
            raise RuntimeError(log[-2000:])
        return log
