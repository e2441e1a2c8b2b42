package torch

import (
	"slices"

	"github.com/seed18967229/nibble/internal/hint"
)

// global is a row of the table of names that a pickle may ask for.
type global struct {
	// name is the module and the name in it.
	name string

	// call is what REDUCE does with it; nil if it is only named.
	call func(m *machine, args []any) (any, error)

	// dtype is that of a dtype or, if storage is set, of a storage class.
	dtype   *dtype
	storage bool
}

// plainTensor marks the functions whose arguments are a storage and a view of
// it, which may be wrapped in others.
var plainTensors = map[string]func(m *machine, args []any) (any, error){
	"torch._utils._rebuild_tensor":               rebuildTensor,
	"torch._utils._rebuild_tensor_v2":            rebuildTensorV2,
	"torch._utils._rebuild_tensor_v3":            rebuildTensorV3,
	"torch._utils._rebuild_parameter":            rebuildParameter,
	"torch._utils._rebuild_parameter_with_state": rebuildParameter,
}

// tensorClasses are those that are a tensor and no more.
var tensorClasses = []string{"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}

// globals is the whole table. Nothing else that a pickle names is looked at.
var globals = newGlobals()

func newGlobals() map[string]*global {
	table := make(map[string]*global)
	add := func(g *global) { table[g.name] = g }
	for name, call := range plainTensors {
		add(&global{name: name, call: call})
	}
	for _, name := range []string{"torch._tensor", "torch.tensor"} {
		add(&global{name: name + "._rebuild_from_type_v2", call: rebuildFromType})
	}
	add(&global{name: "collections.OrderedDict", call: orderedDict})
	add(&global{name: "collections.Counter", call: counter})
	add(&global{name: "torch.Size", call: torchSize})

	add(&global{name: "numpy.ndarray"})
	for _, name := range tensorClasses {
		add(&global{name: name})
	}

	// What may lie beside the tensors of a checkpoint and is not needed.
	for what, names := range map[*inert][]string{
		inertBytes:           {"_codecs.encode", "builtins.bytearray", "__builtin__.bytearray", "__builtin__.bytes"},
		inertSet:             {"builtins.set", "__builtin__.set", "builtins.frozenset", "__builtin__.frozenset"},
		{"a complex number"}: {"builtins.complex", "__builtin__.complex"},
		{"a device"}:         {"torch.device"},
		{"a layout"}:         {"torch.serialization._get_layout"},
		{"numpy's"}: {
			"numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
			"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
			"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer",
		},
	} {
		for _, name := range names {
			add(&global{name: name, call: func(*machine, []any) (any, error) { return what, nil }})
		}
	}

	for _, d := range dtypes {
		add(&global{name: "torch." + d.name, dtype: d})
		if d.storage != "" {
			add(&global{name: "torch." + d.storage, dtype: d, storage: true})
			add(&global{name: "torch.cuda." + d.storage, dtype: d, storage: true})
		}
	}
	for _, name := range []string{"torch.UntypedStorage", "torch.storage.UntypedStorage", "torch.storage._UntypedStorage"} {
		add(&global{name: name, dtype: untyped, storage: true})
	}
	return table
}

// refused tells what is meant by names of torch's own that are not in the table.
var refused = map[string]string{
	"torch.storage._load_from_bytes":                      "a checkpoint inside of the pickle",
	"torch._utils._rebuild_sparse_tensor":                 "a sparse tensor",
	"torch._utils._rebuild_nested_tensor":                 "a nested tensor",
	"torch._utils._rebuild_qtensor":                       "a tensor in torch's own quantization",
	"torch._utils._rebuild_meta_tensor_no_storage":        "a tensor without data",
	"torch._utils._rebuild_wrapper_subclass":              "a tensor subclass without data",
	"torch._utils._rebuild_device_tensor_from_numpy":      "a tensor of another device, as a numpy array",
	"torch._utils._rebuild_device_tensor_from_cpu_tensor": "a tensor of another device",
	"torch.distributed.tensor.DTensor":                    "a tensor spread over machines",
}

func lookUp(module, name string) (*global, error) {
	full := module + "." + name
	if g := globals[full]; g != nil {
		return g, nil
	}
	if what := refused[full]; what != "" {
		return nil, hint.Add(unsupported("%s: %s; nothing of it is executed", full, what), "in PyTorch, save the plain tensors as safetensors")
	}
	return nil, hint.Add(unsupported("it asks for %q, which is not among what a file of tensors needs; nothing of it is executed", short(full)),
		"if you trust the file, load it with PyTorch and save the model's state_dict() alone; if not, beware of it")
}

func arguments(name string, args []any, least, most int) error {
	if len(args) < least || len(args) > most {
		return malformed("%s with %d arguments", name, len(args))
	}
	return nil
}

// rebuildTensor takes storage, offset, size and stride.
func rebuildTensor(m *machine, args []any) (any, error) {
	if err := arguments("_rebuild_tensor", args, 4, 4); err != nil {
		return nil, err
	}
	return newView(m, args, nil)
}

// rebuildTensorV2 takes requires_grad, hooks and metadata too.
func rebuildTensorV2(m *machine, args []any) (any, error) {
	if err := arguments("_rebuild_tensor_v2", args, 6, 7); err != nil {
		return nil, err
	}
	if err := checkMetadata(args[6:]); err != nil {
		return nil, err
	}
	return newView(m, args, nil)
}

// rebuildTensorV3 has the dtype before the metadata.
func rebuildTensorV3(m *machine, args []any) (any, error) {
	if err := arguments("_rebuild_tensor_v3", args, 7, 8); err != nil {
		return nil, err
	}
	g, ok := args[6].(*global)
	if !ok || g.dtype == nil || g.storage {
		return nil, malformed("%s where a tensor's dtype must be", describe(args[6]))
	}
	if err := checkMetadata(args[7:]); err != nil {
		return nil, err
	}
	return newView(m, args, g.dtype)
}

// checkMetadata refuses the bits that change what the stored numbers mean:
// conj and neg.
func checkMetadata(args []any) error {
	if len(args) == 0 || args[0] == nil {
		return nil
	}
	d, ok := args[0].(*dict)
	if !ok {
		return malformed("%s as a tensor's metadata", describe(args[0]))
	}
	for _, i := range d.items {
		if key, ok := i.key.(string); !ok || i.value != false {
			return hint.Add(unsupported("a tensor with the bit %q", short(key)), "in PyTorch, save the result of resolve_conj() and resolve_neg()")
		}
	}
	return nil
}

// rebuildParameter takes a tensor, and what makes it a parameter.
func rebuildParameter(m *machine, args []any) (any, error) {
	if err := arguments("_rebuild_parameter", args, 3, 4); err != nil {
		return nil, err
	}
	if _, ok := args[0].(*view); !ok {
		return nil, malformed("a parameter made of %s", describe(args[0]))
	}
	return args[0], nil
}

// rebuildFromType takes a function, a class, the function's arguments and
// attributes, of a tensor that has some.
func rebuildFromType(m *machine, args []any) (any, error) {
	if err := arguments("_rebuild_from_type_v2", args, 4, 4); err != nil {
		return nil, err
	}
	f, ok := args[0].(*global)
	class, also := args[1].(*global)
	of, and := args[2].(*tuple)
	if !ok || !also || !and {
		return nil, malformed("_rebuild_from_type_v2 of %s, %s and %s", describe(args[0]), describe(args[1]), describe(args[2]))
	}
	call := plainTensors[f.name]
	if call == nil || !slices.Contains(tensorClasses, class.name) {
		return nil, unsupported("%s as a %s; nothing of it is executed", f.name, class.name)
	}
	return call(m, of.items)
}

// orderedDict takes nothing or, of Python 2, a list of pairs.
func orderedDict(m *machine, args []any) (any, error) {
	if err := arguments("OrderedDict", args, 0, 1); err != nil {
		return nil, err
	}
	d := &dict{}
	if err := m.spend(boxCost); err != nil || len(args) == 0 {
		return d, err
	}
	l, ok := args[0].(*list)
	if !ok {
		return nil, malformed("an OrderedDict of %s", describe(args[0]))
	}
	if err := m.spend(2 * slotCost * int64(len(l.items))); err != nil {
		return nil, err
	}
	for _, v := range l.items {
		var pair []any
		switch v := v.(type) {
		case *list:
			pair = v.items
		case *tuple:
			pair = v.items
		}
		if len(pair) != 2 {
			return nil, malformed("an OrderedDict of %s, not of pairs", describe(v))
		}
		d.items = append(d.items, item{pair[0], pair[1]})
	}
	return d, nil
}

// counter is passed on as the dict it is made of.
func counter(m *machine, args []any) (any, error) {
	if err := arguments("Counter", args, 1, 1); err != nil {
		return nil, err
	}
	if _, ok := args[0].(*dict); !ok {
		return nil, malformed("a Counter of %s", describe(args[0]))
	}
	return args[0], nil
}

func torchSize(m *machine, args []any) (any, error) {
	if err := arguments("torch.Size", args, 1, 1); err != nil {
		return nil, err
	}
	if _, ok := args[0].(*tuple); !ok {
		return nil, malformed("a torch.Size of %s", describe(args[0]))
	}
	return args[0], nil
}

// natural returns a value that must be an integer from 0 on.
func natural(v any, what string) (int64, error) {
	switch n := v.(type) {
	case int64:
		if n >= 0 {
			return n, nil
		}
		return 0, malformed("%s is %d", what, n)
	case long:
		return 0, malformed("%s is out of range", what)
	}
	return 0, malformed("%s is %s, not an int", what, describe(v))
}
