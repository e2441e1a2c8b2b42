"""Makes merge/combine/testdata: what mergekit and PEFT combine tensors to.

    python testdata/gen/merge_methods.py --out merge/combine/testdata

The numbers that they draw at random come from torch.bernoulli, which is replaced: each element
is kept if a number that is written down is below its probability. Among elements of equal
magnitude torch's sort and topk take any; here they take the first.
"""

import argparse
from pathlib import Path

from common import torch, versions, write_json
from mergekit.architecture import WeightInfo
from mergekit.common import ImmutableMap, ModelReference
from mergekit.io.tasks import GatherTensors
from mergekit.merge_methods.registry import REGISTERED_MERGE_METHODS
from peft.utils import merge_utils
from safetensors.torch import save_file

SHAPES = {"matrix": (11, 13), "vector": (37,), "row": (1, 40), "stack": (3, 4, 5)}

A = [dict(weight=1.0), dict(weight=0.5), dict(weight=0.75)]
D = [dict(weight=1.0, density=0.6), dict(weight=0.5, density=0.3), dict(weight=0.25, density=1.0)]
N = [dict(weight=1.0, density=0.5), dict(weight=-0.5, density=0.7), dict(weight=0.5, density=0.2)]
G = [dict(weight=1.0, density=0.6, gamma=0.1), dict(weight=0.5, density=0.3, gamma=0.05), dict(weight=0.25, density=0.9, gamma=0.3)]
E = [dict(weight=1.0, density=0.6, epsilon=0.1), dict(weight=0.5, density=0.3, epsilon=0.2), dict(weight=0.25, density=0.8, epsilon=0.15)]
ONE = [dict(weight=1.0, density=d) for d in (0.6, 0.3, 0.9)]
M = [{}, {}, {}]

# Method, parameters, those of each of the first so many models.
MERGEKIT = [
    ("linear", {}, A), ("linear", dict(normalize=False), A), ("linear", {}, [dict(weight=1.0), dict(weight=-0.5)]),
    ("task_arithmetic", {}, A), ("task_arithmetic", {"lambda": 0.7, "normalize": True}, A),
    ("ties", {}, D), ("ties", {}, N), ("ties", {"normalize": False, "lambda": 1.5}, D), ("ties", {"rescale": True}, D), ("ties", {}, D[:1]),
    ("dare_linear", {}, D), ("dare_linear", {"rescale": False}, D), ("dare_linear", {"normalize": True}, N),
    ("dare_ties", {}, D), ("dare_ties", {"normalize": True, "lambda": 0.5}, N),
    ("breadcrumbs", {}, G), ("breadcrumbs", {"normalize": True}, G), ("breadcrumbs_ties", {}, G), ("breadcrumbs_ties", {"rescale": True}, G),
    ("della", {}, E), ("della", {"rescale": False, "lambda": 1.1}, E), ("della_linear", {}, E),
    ("slerp", dict(t=0.3), M[:2]), ("slerp", dict(t=0.0), M[:2]), ("slerp", dict(t=1.0), M[:2]),
    ("model_stock", {}, M), ("model_stock", {}, M[:2]), ("model_stock", dict(filter_wise=True), M),
]
# PEFT has one density, and rescales by it. Its ties takes signs without weights.
PEFT = [
    ("magnitude_prune", dict(density=0.4), [dict(weight=w) for w in (1.0, -0.5, 0.3)]),
    ("dare_linear", dict(density=0.4), [dict(weight=w) for w in (1.0, -0.5, 0.3)]),
    ("dare_ties", dict(density=0.7), [dict(weight=1.0)] * 3),
    ("dare_ties", dict(density=0.7, majority_sign_method="frequency"), [dict(weight=1.0)] * 3),
    ("ties", dict(density=0.4), [dict(weight=1.0)] * 3),
    ("ties", dict(density=0.4, majority_sign_method="frequency"), [dict(weight=1.0)] * 3),
]

drawn, source = [], torch.Generator()


def bernoulli(p):
    u = torch.rand(p.shape, generator=source, dtype=torch.float32)
    drawn.append(u.reshape(-1).clone())
    return (u < p).to(p.dtype)


sort = torch.sort


def stable_sort(x, dim=-1, descending=False):
    return sort(x, dim=dim, descending=descending, stable=True)


def stable_argsort(x, dim=-1, descending=False):
    return stable_sort(x, dim, descending).indices


def stable_topk(x, k, largest):
    values, indices = stable_sort(x, descending=largest)
    return values[:k], indices[:k]


def mergekit(method, parameters, each, base, models):
    kind = REGISTERED_MERGE_METHODS[method]
    refs = [ModelReference.model_validate(f"model{i}") for i in range(len(models))]
    tensors = dict(zip(refs, (m.clone() for m in models)))
    ref = None
    if method == "slerp":  # its base is the first of the two
        ref = refs[0]
    elif method != "linear":
        ref = ModelReference.model_validate("base")
        tensors[ref] = base.clone()
    own = {p.name: p.default_value for p in kind.tensor_parameters()}
    task = kind.make_task(
        output_weight=WeightInfo(name="w"), tensors=GatherTensors(weight_info=ImmutableMap(data={})), base_model=ref,
        parameters=ImmutableMap(data={p.name: p.default_value for p in kind.parameters()} | parameters),
        tensor_parameters=ImmutableMap(data={r: ImmutableMap(data=own | e) for r, e in zip(refs, each)}))
    return task.execute(tensors=tensors)


def peft(method, parameters, each, base, models):
    weights = torch.tensor([e["weight"] for e in each])
    return base + getattr(merge_utils, method)([m - base for m in models], weights, **parameters)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=Path, required=True)
    out = args.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(11)
    source.manual_seed(12)
    torch.bernoulli, torch.sort, torch.argsort, torch.topk = bernoulli, stable_sort, stable_argsort, stable_topk
    inputs, results, cases = {}, {}, []
    for name, shape in SHAPES.items():
        inputs[f"{name}.base"] = torch.round(torch.randn(shape) * 64) / 64
        for i in range(3):
            delta = torch.randn(shape) * (0.1 + 0.1 * i)
            if i == 1:  # as of models in few digits: equal magnitudes, and zeros
                delta = torch.round(delta * 16) / 16
            inputs[f"{name}.model{i}"] = inputs[f"{name}.base"] + delta
    for peer, run, list_ in (("mergekit", mergekit, MERGEKIT), ("peft", peft, PEFT)):
        for method, parameters, each in list_:
            for name in SHAPES:
                if name == "stack" and method.startswith("della"):
                    continue  # mergekit ranks along another dimension
                drawn.clear()
                models = [inputs[f"{name}.model{i}"] for i in range(len(each))]
                key = str(len(cases))
                results[key] = run(method, parameters, each, inputs[f"{name}.base"], models).contiguous()
                for i, u in enumerate(drawn):
                    results[f"{key}.drawn{i}"] = u
                cases.append({"peer": peer, "method": method, "tensor": name, "parameters": parameters, "each": each})
    save_file(inputs, out / "inputs.safetensors")
    save_file(results, out / "results.safetensors")
    write_json(out / "cases.json", {"versions": versions("mergekit", "peft", "torch"), "cases": cases})


main()
