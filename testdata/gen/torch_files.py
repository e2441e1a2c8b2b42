"""Makes formats/torch/testdata: small checkpoints as torch.save writes them.

    python testdata/gen/torch_files.py --out formats/torch/testdata
"""

import argparse
import collections
import hashlib
import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
from common import torch, versions, write_json

# Otherwise torch.load fails on 4-bit floats: it fills what it is about to read into.
torch.utils.deterministic.fill_uninitialized_memory = False

# torch's dtypes by the names that safetensors has for them.
DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu, "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16, "U16": torch.uint16, "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32,
    "U32": torch.uint32, "F32": torch.float32, "C64": torch.complex64, "F64": torch.float64, "I64": torch.int64,
    "U64": torch.uint64, "F4": torch.float4_e2m1fn_x2,
}
NAMES = {d: n for n, d in DTYPES.items()}
# Those that have a storage class; the others are UntypedStorage with a dtype.
TYPED = ["BOOL", "U8", "I8", "I16", "F16", "BF16", "I32", "F32", "C64", "F64", "I64"]


def counting(dtype, *shape):
    """A tensor whose bytes count up from its dtype's place in the list."""
    n = int(np.prod(shape)) * dtype.itemsize
    start = list(NAMES).index(dtype)
    raw = torch.tensor([(start + j) % 256 for j in range(n)], dtype=torch.uint8)
    if dtype == torch.bool:
        raw %= 2
    return raw.view(dtype).reshape(shape)


def dtypes(names):
    return {"t." + n: counting(DTYPES[n], 2, 3) for n in names}


def views():
    """Views of every kind, of storages that several share."""
    a = torch.arange(60, dtype=torch.float32)
    h = torch.arange(24, dtype=torch.int16).reshape(2, 3, 4)
    return collections.OrderedDict(
        whole=a, offset=a[7:19], matrix=a[4:28].view(4, 6), transposed=a.view(6, 10).t(), column=a.view(6, 10)[:, 3],
        step=a[3::7], block=a.view(6, 10)[1:4, 2:9], permuted=h.permute(2, 0, 1), inner=h.transpose(1, 2),
        expanded=a[:3].expand(4, 3), expanded_inner=a[:3].view(3, 1).expand(3, 5), expanded_all=a[5].expand(2, 2),
        windows=a[:10].unfold(0, 4, 2), diagonal=a[:36].view(6, 6).diagonal(), scalar=a[11], one=a[11:12].view(1, 1, 1),
        empty=torch.zeros(0, 4), empty_view=a[60:60], no_rows=torch.zeros(3, 0, dtype=torch.float16),
        channels_last=torch.arange(48, dtype=torch.uint8).reshape(2, 3, 2, 4).contiguous(memory_format=torch.channels_last),
        real=torch.view_as_real(torch.complex(a[:4], a[4:8]))[:, 1],
    )


def module():
    """The state_dict of a module: with _metadata, tied weights, a buffer, and parameters kept as such."""
    torch.manual_seed(3)
    m = torch.nn.Module()
    m.embed = torch.nn.Embedding(5, 4)
    m.proj = torch.nn.Linear(4, 3)
    m.head = torch.nn.Linear(4, 5, bias=False)
    m.head.weight = m.embed.weight
    m.register_buffer("ids", torch.arange(6).expand(1, -1))
    return m


def with_note():
    t = torch.arange(3, dtype=torch.float32)
    t.note = "a tensor with an attribute of its own"
    return t


def training():
    """What trainers save: the model among other things."""
    m = module()
    opt = torch.optim.AdamW([m.proj.weight, m.proj.bias], lr=1e-2)
    m.proj(torch.ones(2, 4)).sum().backward()
    opt.step()
    return {
        "epoch": 3, "global_step": 10**12, "best": 0.25, "big": 2**80, "minus": -(2**40), "name": "run é", "none": None, "flag": True,
        "model": collections.OrderedDict(m.named_parameters(remove_duplicate=False), note=with_note(), version=2),
        "optimizer": opt.state_dict(), "rng": torch.arange(8, dtype=torch.uint8),
        "numpy": {"loss": np.float64(1.5), "array": np.arange(3), "bytes": b"\x00\xff"}, "size": torch.Size([2, 3]), "device": torch.device("cpu"),
        "dtype": torch.bfloat16, "set": {1, 2}, "frozen": frozenset([3]), "count": collections.Counter("aab"), "complex": 1 + 2j,
        "bytearray": bytearray(b"ab"), "deep": [[(1, [2, {"x": 3}])]],
    }


def save(obj, **options):
    b = io.BytesIO()
    torch.save(obj, b, **options)
    return b.getvalue()


def repack(data, change, method=zipfile.ZIP_STORED):
    """The zip archive with change(name, bytes) in every entry's place."""
    b = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(b, "w", method) as new:
        for i in old.infolist():
            new.writestr(zipfile.ZipInfo(i.filename), change(i.filename, old.read(i)), method)
    return b.getvalue()


def big_endian():
    """Tensors as a big-endian machine writes them. There is none of the dtypes without a storage class: torch 2.15 does
    not swap their bytes back."""
    obj = {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "t": torch.arange(12, dtype=torch.int16).reshape(3, 4).t(),
           "c": counting(torch.complex64, 3), "u": torch.arange(5, dtype=torch.uint8), "d": torch.tensor(1e-300, dtype=torch.float64),
           "long": torch.arange(20, dtype=torch.int64)[3:9]}
    swap = [4, 2, 4, 1, 8, 8]  # by storage

    def change(name, data):
        record = name.split("/", 1)[1]
        if record == "byteorder":
            return b"big"
        if record.startswith("data/"):
            n = swap[int(record[5:])]
            return b"".join(data[i:i + n][::-1] for i in range(0, len(data), n))
        return data
    return repack(save(obj), change)


class Pickled(torch.nn.Module):
    """A class of the script's, which no reader of tensors knows."""


def refused():
    """Files that are sound and not for us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = io.BytesIO()
        torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)), script)
        quantized = torch.quantize_per_tensor(torch.zeros(2), 0.5, 0, torch.qint8)
        return {
            "tensor.pt": save(torch.zeros(2)), "list.pt": save([torch.zeros(2)]), "module.pt": save(torch.nn.Linear(1, 1)),
            "class.pt": save({"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(lr=1)}),
            "sparse.pt": save({"a": torch.eye(2).to_sparse()}), "quantized.pt": save({"a": quantized}),
            "meta.pt": save({"a": torch.zeros(2, device="meta")}), "complex128.pt": save({"a": torch.zeros(1, dtype=torch.complex128)}),
            "conj.pt": save({"a": torch.zeros(1, dtype=torch.complex64).conj()}), "script.pt": script.getvalue(),
            "deflated.pt": repack(save({"a": torch.zeros(2)}), lambda _, data: data, zipfile.ZIP_DEFLATED),
            "two.pt": save({"generator": {"a": torch.zeros(1)}, "critic": {"a": torch.zeros(1)}}),
            "numbered.pt": save({0: torch.zeros(1), "a": torch.zeros(1)}), "nothing.pt": save({"epoch": 1}),
        }


def describe(data, nested):
    """What torch itself reads from the file."""
    d = torch.load(io.BytesIO(data), weights_only=False)
    for key in filter(None, nested.split(".")):
        d = d[key]
    tensors = []
    for name, t in d.items():
        if isinstance(t, torch.Tensor):
            t, dtype = t.detach().contiguous(), NAMES[t.dtype]
            shape = list(t.shape)
            if dtype == "F4":
                shape[-1] *= 2
            raw = t.reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b""
            tensors.append({"name": name, "dtype": dtype, "shape": shape, "sha256": hashlib.sha256(raw).hexdigest()})
    return {"nested": nested, "tensors": tensors}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=Path, required=True)
    out = args.parse_args().out
    files = {
        "dtypes.pt": (save(dtypes(DTYPES)), ""),
        "views.pt": (save(views()), ""),
        "module.bin": (save(module().state_dict()), ""),
        "training.pth": (save(training()), "model"),
        "lightning.ckpt": (save({"state_dict": module().state_dict(), "model": {"x": torch.zeros(1)}, "epoch": 1}), "state_dict"),
        "deep.pt": (save({"model": {"weights": {"a": torch.ones(1)}, "n": 1}, "x": [1]}), "model.weights"),
        "protocol3.pt": (save(training(), pickle_protocol=3), "model"),
        "protocol5.pt": (save(training(), pickle_protocol=5), "model"),
        "big_endian.pt": (big_endian(), ""),
        "legacy_dtypes.pt": (save(dtypes(TYPED), _use_new_zipfile_serialization=False), ""),
        "legacy_views.pt": (save(views(), _use_new_zipfile_serialization=False), ""),
        "legacy_training.bin": (save(training(), _use_new_zipfile_serialization=False), "model"),
        "legacy_protocol4.bin": (save(training(), _use_new_zipfile_serialization=False, pickle_protocol=4), "model"),
    }
    expect = {}
    for name, (data, nested) in files.items():
        (out / name).write_bytes(data)
        expect[name] = describe(data, nested)
    for name, data in refused().items():
        (out / "refused" / name).parent.mkdir(exist_ok=True)
        (out / "refused" / name).write_bytes(data)
    write_json(out / "expect.json", {"versions": versions("torch", "numpy"), "files": expect})


main()
