package torch

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// The functions below write pickles by hand: each returns the opcodes that
// leave one value on the stack.

const proto2, proto4 = "\x80\x02", "\x80\x04"

func text(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func short8(s string) string { return "\x8c" + string(rune(len(s))) + s }

func number(n int64) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func tupleWith(values ...string) string { return "(" + strings.Join(values, "") + "t" }

func ints(list ...int64) string {
	var s []string
	for _, n := range list {
		s = append(s, number(n))
	}
	return tupleWith(s...)
}

func name(module, name string) string { return "c" + module + "\n" + name + "\n" }

func call(function string, args ...string) string { return function + tupleWith(args...) + "R" }

// dictWith takes keys and values in turn.
func dictWith(values ...string) string { return "}(" + strings.Join(values, "") + "u" }

func storageID(class, key string, n int64) string {
	return tupleWith(text("storage"), name("torch", class), text(key), text("cpu"), number(n)) + "Q"
}

// tensorOf is a tensor of a storage that storageID names.
func tensorOf(storage string, offset int64, size, stride string) string {
	return call(name("torch._utils", "_rebuild_tensor_v2"), storage, number(offset), size, stride, "\x89", call(name("collections", "OrderedDict")))
}

// floats is a tensor of n floats in storage 0.
func floats(n int64) string { return tensorOf(storageID("FloatStorage", "0", n), 0, ints(n), ints(1)) }

// file is a zip archive of entries by name and content, in turn.
func file(entries ...string) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(entries); i += 2 {
		f, err := w.CreateHeader(&zip.FileHeader{Name: entries[i], Method: zip.Store})
		if err == nil {
			_, err = io.WriteString(f, entries[i+1])
		}
		if err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// pickled is a checkpoint with a storage of eight floats.
func pickled(pickle string) []byte {
	return file("a/data.pkl", pickle, "a/data/0", strings.Repeat("\x00\x00\x80\x3f", 8))
}

func parseBytes(b []byte) (*tensor.Table, error) { return Parse(bytes.NewReader(b), int64(len(b))) }

// hostile are pickles that must be refused, and what is said of them.
var hostile = []struct {
	name, pickle string
	is           error
	says         string
}{
	{"os.system by GLOBAL", proto2 + call(name("os", "system"), text("touch /tmp/owned")) + ".", tensor.ErrUnsupported,
		`it asks for "os.system", which is not among what a file of tensors needs; nothing of it is executed`},
	{"posix.system", proto2 + call(name("posix", "system"), text("id")) + ".", tensor.ErrUnsupported, `"posix.system"`},
	{"eval by STACK_GLOBAL", proto4 + short8("builtins") + short8("eval") + "\x93" + tupleWith(text("1+1")) + "R.", tensor.ErrUnsupported,
		`STACK_GLOBAL: unsupported input: it asks for "builtins.eval"`},
	{"eval of Python 2", proto2 + call(name("__builtin__", "eval"), text("1")) + ".", tensor.ErrUnsupported, `"__builtin__.eval"`},
	{"attribute of what is allowed", proto4 + short8("torch") + short8("Size.__class__") + "\x93.", tensor.ErrUnsupported, `"torch.Size.__class__"`},
	{"getattr", proto2 + call(name("builtins", "getattr"), name("torch", "Size"), text("__bases__")) + ".", tensor.ErrUnsupported, `"builtins.getattr"`},
	{"module of the pickle", proto2 + name("torch.hub", "load") + ".", tensor.ErrUnsupported, `"torch.hub.load"`},
	{"name cut differently", proto2 + name("torch._utils._rebuild_tensor", "v2") + ".", tensor.ErrUnsupported, `"torch._utils._rebuild_tensor.v2"`},
	{"name of control characters", proto2 + name("a\x1b[2J", "b\xff") + ".", tensor.ErrUnsupported, `"a\x1b[2J.b\xff"`},
	{"torch's own loader", proto2 + call(name("torch.storage", "_load_from_bytes"), "C\x01x") + ".", tensor.ErrUnsupported,
		"torch.storage._load_from_bytes: a checkpoint inside of the pickle; nothing of it is executed"},
	{"nested reduce", proto2 + call(call(name("torch", "Size"), ints(1)), text("x")) + ".", tensor.ErrMalformed, "REDUCE: malformed input: a tuple is not a function"},
	{"reduce of a string", proto2 + text("x") + ")R.", tensor.ErrMalformed, "a string is not a function"},
	{"reduce of a class", proto2 + name("torch", "Tensor") + ")R.", tensor.ErrUnsupported, "torch.Tensor is only known by name"},
	{"reduce of a dtype", proto2 + name("torch", "float32") + ")R.", tensor.ErrUnsupported, "torch.float32 is only known by name"},
	{"reduce without a tuple", proto2 + name("torch", "Size") + "]R.", tensor.ErrMalformed, "its arguments are a list"},
	{"wrapped call", proto2 + call(name("torch._tensor", "_rebuild_from_type_v2"), name("torch._tensor", "_rebuild_from_type_v2"), name("torch", "Tensor"), ints(1), "N") + ".",
		tensor.ErrUnsupported, "torch._tensor._rebuild_from_type_v2 as a torch.Tensor"},
	{"wrapped into another class", proto2 + call(name("torch._tensor", "_rebuild_from_type_v2"), name("torch._utils", "_rebuild_tensor_v2"), name("torch", "Size"), ints(1), "N") + ".",
		tensor.ErrUnsupported, "torch._utils._rebuild_tensor_v2 as a torch.Size"},
	{"build of a tensor", proto2 + floats(8) + "}b.", tensor.ErrUnsupported, "attributes for a tensor"},
	{"build of a function", proto2 + name("torch", "Size") + "}b.", tensor.ErrUnsupported, "attributes for torch.Size"},
	{"whole module by id", proto2 + tupleWith(text("module"), text("x"), text("y"), text("z")) + "Q.", tensor.ErrUnsupported, "a whole module"},

	{"empty", "", tensor.ErrMalformed, "truncated"},
	{"no end", proto2 + "N", tensor.ErrMalformed, "truncated"},
	{"no value", proto2 + ".", tensor.ErrMalformed, "0 values"},
	{"two values", proto2 + "NN.", tensor.ErrMalformed, "2 values"},
	{"mark at the end", proto2 + "N(.", tensor.ErrMalformed, "1 marks"},
	{"more behind the end", proto2 + dictWith(text("a"), floats(8)) + ".N", tensor.ErrMalformed, "1 bytes behind the end"},
	{"text protocol", "cos\nsystem\n(S'id'\ntR.", tensor.ErrMalformed, "begins with byte 0x63"},
	{"protocol 1", "\x80\x01N.", tensor.ErrUnsupported, "protocol 1"},
	{"protocol 6", "\x80\x06N.", tensor.ErrUnsupported, "protocol 6"},
	{"no opcode", proto2 + "\xff.", tensor.ErrMalformed, "0xff is no opcode"},
	{"pop below the mark", proto2 + "N(\x85t.", tensor.ErrMalformed, "takes more values"},
	{"top below the mark", proto2 + "](N" + "a.", tensor.ErrMalformed, "nothing on the stack"},
	{"tuple without mark", proto2 + "Nt.", tensor.ErrMalformed, "no mark"},
	{"put nothing", proto2 + "q\x00.", tensor.ErrMalformed, "nothing on the stack"},
	{"get nothing", proto2 + "h\x07.", tensor.ErrMalformed, "nothing was kept under 7"},
	{"append to a tuple", proto2 + ")Na.", tensor.ErrMalformed, "a tuple, not a list"},
	{"set in a list", proto2 + "]NNs.", tensor.ErrMalformed, "a list, not a dict"},
	{"key without value", proto2 + "}(Nu.", tensor.ErrMalformed, "a key without a value"},
	{"STACK_GLOBAL of numbers", proto4 + "NN\x93.", tensor.ErrMalformed, "None and None"},
	{"line without end", proto2 + "c" + strings.Repeat("x", 1000) + "\nname\n.", tensor.ErrMalformed, "a line of more than 256 bytes"},

	{"exabytes of bytes", proto4 + "\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.", tensor.ErrMalformed, "truncated: 1152921504606846975 bytes needed"},
	{"more than 64 bits can count", proto4 + "\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", tensor.ErrMalformed, "truncated: 18446744073709551615 bytes needed"},
	{"exabytes of text", proto4 + "\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.", tensor.ErrMalformed, "truncated"},
	{"gigabytes of text", proto2 + "X\xff\xff\xff\xff.", tensor.ErrMalformed, "truncated: 4294967295 bytes needed"},
	{"exabytes of bytearray", "\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x0f.", tensor.ErrMalformed, "truncated"},
	{"exabytes of frame", proto4 + "\x95\xff\xff\xff\xff\xff\xff\xff\x0fN.", tensor.ErrMalformed, "truncated"},
	{"gigabytes of number", proto2 + "\x8b\xff\xff\xff\xff.", tensor.ErrMalformed, "truncated"},
	{"long number", proto2 + "\x8b\x01\x01\x00\x00" + strings.Repeat("x", 257) + ".", tensor.ErrUnsupported, "an integer of 257 bytes"},
	{"nothing but marks", proto2 + strings.Repeat("(", maxStack+1) + ".", tensor.ErrUnsupported, "values on the stack"},
	{"nothing but values", proto2 + strings.Repeat("N", maxStack+1) + ".", tensor.ErrUnsupported, "values on the stack"},
	{"billion laughs", billionLaughs(), tensor.ErrUnsupported, "the checkpoint is a list"},
	{"list that holds itself", proto2 + "]q\x00h\x00a.", tensor.ErrUnsupported, "the checkpoint is a list"},
	{"dict that holds itself", proto2 + "}q\x00" + text("model") + "h\x00s.", tensor.ErrMalformed, "no dict of tensors"},
	{"memo of millions", proto2 + "]" + memos(300_000) + ".", tensor.ErrUnsupported, "the checkpoint is a list"},
	{"dicts in dicts", proto2 + strings.Repeat("}"+text("a"), 50_000) + "N" + strings.Repeat("s", 50_000) + ".", tensor.ErrMalformed, "no dict of tensors"},

	{"storage of another kind", proto2 + tupleWith(text("storages"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(8)) + "Q.", tensor.ErrMalformed, "not a storage's"},
	{"storage id too short", proto2 + tupleWith(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu")) + "Q.", tensor.ErrMalformed, "not a storage's"},
	{"storage id that is a string", proto2 + text("0") + "Q.", tensor.ErrMalformed, "a string as the name of a storage"},
	{"storage of a dtype", proto2 + storageID("float32", "0", 8) + ".", tensor.ErrMalformed, "a storage of torch.float32"},
	{"storage of a function", proto2 + storageID("Size", "0", 8) + ".", tensor.ErrMalformed, "a storage of torch.Size"},
	{"storage missing", proto2 + storageID("FloatStorage", "1", 8) + ".", tensor.ErrMalformed, `no entry "data/1"`},
	{"storage with a path", proto2 + storageID("FloatStorage", "../data.pkl", 8) + ".", tensor.ErrMalformed, `no entry "data/../data.pkl"`},
	{"storage larger than its entry", proto2 + storageID("FloatStorage", "0", 9) + ".", tensor.ErrMalformed, `storage "0" has 32 bytes, the pickle says 36`},
	{"storage of negative size", proto2 + storageID("FloatStorage", "0", -1) + ".", tensor.ErrMalformed, "a storage's size is -1"},
	{"storage size overflows", proto2 + storageID("FloatStorage", "0", math.MaxInt64) + ".", tensor.ErrMalformed, "9223372036854775807 elements"},

	{"tensor of no storage", proto2 + tensorOf("N", 0, ints(1), ints(1)) + ".", tensor.ErrMalformed, "a tensor of None"},
	{"tensor with few arguments", proto2 + call(name("torch._utils", "_rebuild_tensor_v2"), "N") + ".", tensor.ErrMalformed, "_rebuild_tensor_v2 with 1 arguments"},
	{"tensor with a list as size", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 0, "]", ints(1)) + ".", tensor.ErrMalformed, "size a list"},
	{"sizes without strides", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 0, ints(1, 1), ints(1)) + ".", tensor.ErrMalformed, "2 sizes and 1 strides"},
	{"size is a float", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 0, tupleWith("G\x3f\xf0\x00\x00\x00\x00\x00\x00"), ints(1)) + ".", tensor.ErrMalformed, "a tensor's size is a float, not an int"},
	{"size of 2**80", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 0, tupleWith("\x8a\x0b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"), ints(1)) + ".", tensor.ErrMalformed, "a tensor's size is out of range"},
	{"negative size", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 0, ints(-1), ints(1)) + ".", tensor.ErrMalformed, "a tensor's size is -1"},
	{"negative stride", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 7, ints(8), ints(-1)) + ".", tensor.ErrMalformed, "a tensor's stride is -1"},
	{"negative offset", proto2 + tensorOf(storageID("FloatStorage", "0", 8), -1, ints(8), ints(1)) + ".", tensor.ErrMalformed, "a tensor's offset is -1"},
	{"one element too many", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 0, ints(9), ints(1)) + ".", tensor.ErrMalformed,
		`a view of size [9], stride [1] and offset 0 in storage "0", which has 32 bytes`},
	{"behind the end", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 1, ints(2, 4), ints(4, 1)) + ".", tensor.ErrMalformed, "a view of size [2 4]"},
	{"beyond what is said of the storage", proto2 + tensorOf(storageID("FloatStorage", "0", 7), 0, ints(8), ints(1)) + ".", tensor.ErrMalformed, "which has 28 bytes"},
	{"shape overflows", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 0, ints(1<<40, 1<<40), ints(0, 0)) + ".", tensor.ErrMalformed, "more elements than 64 bits can count"},
	{"size in bytes overflows", proto2 + dictWith(text("a"), tensorOf(storageID("FloatStorage", "0", 8), 0, ints(1<<62), ints(0))) + ".", tensor.ErrMalformed, "more bytes than 64 bits can count"},
	{"stride overflows", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 0, ints(3), ints(math.MaxInt64)) + ".", tensor.ErrMalformed, "a view of"},
	{"sum of strides overflows", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 0, ints(2, 2), ints(math.MaxInt64, math.MaxInt64)) + ".", tensor.ErrMalformed, "a view of"},
	{"offset overflows", proto2 + tensorOf(storageID("FloatStorage", "0", 8), math.MaxInt64, ints(2), ints(1)) + ".", tensor.ErrMalformed, "a view of"},
	{"offset in bytes overflows", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 1<<62, ints(1), ints(1)) + ".", tensor.ErrMalformed, "a view of"},
	{"65 dimensions", proto2 + tensorOf(storageID("FloatStorage", "0", 8), 0, ints(make([]int64, 65)...), ints(make([]int64, 65)...)) + ".", tensor.ErrUnsupported, "65 dimensions"},
	{"dtype of a wider storage", proto2 + call(name("torch._utils", "_rebuild_tensor_v3"), storageID("UntypedStorage", "0", 32), number(0), ints(17), ints(1), "\x89", "}", name("torch", "uint16")) + ".",
		tensor.ErrMalformed, "which has 32 bytes"},
	{"dtype is a storage", proto2 + call(name("torch._utils", "_rebuild_tensor_v3"), storageID("UntypedStorage", "0", 32), number(0), ints(1), ints(1), "\x89", "}", name("torch", "FloatStorage")) + ".",
		tensor.ErrMalformed, "torch.FloatStorage where a tensor's dtype must be"},
	{"scalar of 4 bits", proto2 + dictWith(text("a"), call(name("torch._utils", "_rebuild_tensor_v3"), storageID("UntypedStorage", "0", 32), number(0), ")", ")", "\x89", "}", name("torch", "float4_e2m1fn_x2"))) + ".",
		tensor.ErrUnsupported, `tensor "a": unsupported input: a scalar of torch.float4_e2m1fn_x2`},
	{"parameter of a number", proto2 + call(name("torch._utils", "_rebuild_parameter"), "K\x01", "\x88", "}") + ".", tensor.ErrMalformed, "a parameter made of an int"},
	{"metadata that is no dict", proto2 + call(name("torch._utils", "_rebuild_tensor_v2"), storageID("FloatStorage", "0", 8), number(0), ints(8), ints(1), "\x89", "}", "]") + ".", tensor.ErrMalformed, "a list as a tensor's metadata"},
	{"OrderedDict of numbers", proto2 + call(name("collections", "OrderedDict"), "]K\x01a") + ".", tensor.ErrMalformed, "not of pairs"},

	{"name twice", proto2 + dictWith(text("a"), floats(8), text("a"), floats(4)) + ".", tensor.ErrMalformed, `tensor "a": malformed input: the name occurs twice`},
	{"name is not UTF-8", proto2 + dictWith(text("a\xff"), floats(8)) + ".", tensor.ErrMalformed, `"a\xff" is not UTF-8`},
	{"tensors here and there", proto2 + dictWith(text("a"), floats(8), text("b"), dictWith(text("c"), floats(8))) + ".", tensor.ErrUnsupported, `tensors in 2 dicts: at the top, in "b"`},
	{"tensors inside of the model's", proto2 + dictWith(text("model"), dictWith(text("a"), floats(8), text("b"), dictWith(text("c"), dictWith(text("d"), floats(8))))) + ".",
		tensor.ErrUnsupported, `tensors in 2 dicts: in "model", in "model.b.c"`},
}

// billionLaughs makes lists of ten times the list before.
func billionLaughs() string {
	s := proto2 + "]q\x00"
	for i := range 30 {
		s += "](" + strings.Repeat("h"+string(rune(i)), 10) + "eq" + string(rune(i+1))
	}
	// The lists before the last lie below it.
	return proto2 + "](" + s[2:] + "e."
}

// memos keeps the value on the stack under many numbers, the largest first.
func memos(n int) string {
	var b []byte
	for i := range n {
		b = append(b, 'r')
		b = binary.LittleEndian.AppendUint32(b, math.MaxUint32-uint32(i)*1000)
	}
	return string(b)
}

func TestHostile(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseBytes(pickled(c.pickle))
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "\x1b")
			require.Less(t, len(err.Error()), 1000)
		})
	}
}

// TestRefusedOpcodes checks that opcodes which torch.save does not write are
// refused by name, and that the table has every opcode there is.
func TestRefusedOpcodes(t *testing.T) {
	for _, c := range []struct{ code, name string }{
		{"\x81", "NEWOBJ"}, {"\x92", "NEWOBJ_EX"}, {"i", "INST"}, {"o", "OBJ"}, {"\x82", "EXT1"}, {"\x83", "EXT2"}, {"\x84", "EXT4"},
		{"P", "PERSID"}, {"I", "INT"}, {"L", "LONG"}, {"F", "FLOAT"}, {"S", "STRING"}, {"V", "UNICODE"}, {"p", "PUT"}, {"g", "GET"},
		{"d", "DICT"}, {"l", "LIST"}, {"0", "POP"}, {"1", "POP_MARK"}, {"2", "DUP"}, {"\x97", "NEXT_BUFFER"}, {"\x98", "READONLY_BUFFER"},
	} {
		_, err := parseBytes(pickled(proto4 + name("torch", "Size") + ")" + c.code + "."))
		require.ErrorIs(t, err, tensor.ErrUnsupported, c.name)
		require.ErrorContains(t, err, "opcode "+c.name+", which")
		require.ErrorContains(t, err, "nothing of it is executed")
	}
	known := 0
	for _, op := range opcodes {
		if op.name != "" {
			known++
		}
	}
	require.Equal(t, 68, known, "pickletools.opcodes has as many")
}

// TestSound parses pickles that look odd and are in order.
func TestSound(t *testing.T) {
	note := tupleWith(storageID("FloatStorage", "0", 8), number(0), ints(8), ints(1), "\x89", "}")
	for name, c := range map[string]struct {
		pickle string
		names  []string
	}{
		"empty memo and frames":  {proto4 + "\x95\x01\x00\x00\x00\x00\x00\x00\x00" + dictWith(text("a"), floats(8)) + ".", []string{"a"}},
		"two names, one tensor":  {proto2 + dictWith(text("a"), floats(8)+"q\x01", text("b"), "h\x01") + ".", []string{"a", "b"}},
		"Python 2's OrderedDict": {proto2 + call(name("collections", "OrderedDict"), "](](U\x01a"+floats(8)+"e"+"e") + ".", []string{"a"}},
		"a tensor of version 1":  {proto2 + dictWith(text("a"), call(name("torch._utils", "_rebuild_tensor"), storageID("FloatStorage", "0", 8), number(4), ints(2, 2), ints(2, 1))) + ".", []string{"a"}},
		"with attributes": {proto2 + dictWith(text("a"), call(name("torch.tensor", "_rebuild_from_type_v2"),
			name("torch._utils", "_rebuild_tensor_v2"), name("torch", "Tensor"), note, dictWith(text("note"), "N"))) + ".", []string{"a"}},
		"on a GPU":          {proto2 + dictWith(text("a"), tensorOf(tupleWith(text("storage"), name("torch.cuda", "HalfStorage"), text("0"), text("cuda:0"), number(16))+"Q", 0, ints(4, 4), ints(1, 4))) + ".", []string{"a"}},
		"a view of nothing": {proto2 + dictWith(text("a"), tensorOf(storageID("FloatStorage", "0", 8), 99, ints(0, 5), ints(5, 1))) + ".", []string{"a"}},
		"repeats":           {proto2 + dictWith(text("a"), tensorOf(storageID("FloatStorage", "0", 8), 3, ints(3, 2, 4), ints(0, 1, 0))) + ".", []string{"a"}},
		"a dict twice":      {proto2 + dictWith(text("a"), dictWith(text("x"), floats(8))+"q\x01", text("b"), "h\x01") + ".", []string{"x"}},
	} {
		t.Run(name, func(t *testing.T) {
			src, err := parseBytes(pickled(c.pickle))
			require.NoError(t, err)
			tensortest.TestSource(t, src)
			var names []string
			for info := range src.All() {
				names = append(names, info.Name)
			}
			require.Equal(t, c.names, names)
		})
	}
}

func TestNumbers(t *testing.T) {
	for pickle, want := range map[string]any{
		"K\xff": int64(255), "M\xff\xff": int64(65535), "J\xff\xff\xff\xff": int64(-1), "J\xff\xff\xff\x7f": int64(math.MaxInt32),
		"\x8a\x00": int64(0), "\x8a\x01\xff": int64(-1), "\x8a\x02\xff\x00": int64(255), "\x8b\x02\x00\x00\x00\x00\x80": int64(-32768),
		"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f": int64(math.MaxInt64), "\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80": int64(math.MinInt64),
		"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00": long("\x00\x00\x00\x00\x00\x00\x00\x80\x00"),
		"G\xbf\xf8\x00\x00\x00\x00\x00\x00":            -1.5,
		"\x88":                                         true, "\x89": false, "N": nil, "U\x01a": "a", "T\x01\x00\x00\x00a": "a", "B\x01\x00\x00\x00a": inertBytes,
	} {
		p := proto2 + pickle + "."
		got, err := unpickle(newInput(strings.NewReader(p), 0, int64(len(p))), nil)
		require.NoError(t, err, "%q", pickle)
		require.Equal(t, want, got, "%q", pickle)
	}
}

// TestArchive reads archives that are wrong.
func TestArchive(t *testing.T) {
	good := proto2 + dictWith(text("a"), floats(8)) + "."
	data := strings.Repeat("x", 32)
	edit := func(b []byte, old, new string) []byte {
		require.Equal(t, len(old), len(new))
		require.Contains(t, string(b), old)
		return bytes.ReplaceAll(b, []byte(old), []byte(new))
	}
	deflated := func() []byte {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		f, err := w.Create("a/data.pkl")
		require.NoError(t, err)
		_, err = f.Write(make([]byte, 1<<20))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	whole := file("a/data.pkl", good, "a/data/0", data)
	for name, c := range map[string]struct {
		file []byte
		is   error
		says string
	}{
		"not torch's":          {file("word/document.xml", "<a/>"), tensor.ErrMalformed, "without data.pkl"},
		"no directory":         {file("data.pkl", good), tensor.ErrMalformed, "without data.pkl"},
		"no entries":           {append([]byte(zipMagic), file()...), tensor.ErrMalformed, "without data.pkl"},
		"entry twice":          {file("a/data.pkl", good, "a/data/0", data, "a/data/0", data), tensor.ErrMalformed, `zip entry "a/data/0"`},
		"pickle twice":         {file("a/data.pkl", good, "a/data.pkl", good), tensor.ErrMalformed, `zip entry "a/data.pkl"`},
		"two directories":      {file("a/data.pkl", good, "b/data/0", data), tensor.ErrMalformed, `zip entry "b/data/0"`},
		"TorchScript":          {file("a/data.pkl", good, "a/constants.pkl", "x"), tensor.ErrUnsupported, "TorchScript"},
		"storage missing":      {file("a/data.pkl", good), tensor.ErrMalformed, `no entry "data/0"`},
		"storage short":        {file("a/data.pkl", good, "a/data/0", data[1:]), tensor.ErrMalformed, "has 31 bytes, the pickle says 32"},
		"byte order":           {file("a/data.pkl", good, "a/data/0", data, "a/byteorder", "middle"), tensor.ErrMalformed, `byteorder is "middle"`},
		"long byte order":      {file("a/data.pkl", good, "a/data/0", data, "a/byteorder", strings.Repeat("little", 1000)), tensor.ErrMalformed, "byteorder"},
		"deflated bomb":        {deflated(), tensor.ErrUnsupported, "compressed"},
		"encrypted":            {edit(edit(whole, "PK\x01\x02\x14\x00\x14\x00\x08\x00", "PK\x01\x02\x14\x00\x14\x00\x09\x00"), "a", "a"), tensor.ErrUnsupported, "encrypted"},
		"truncated":            {whole[:len(whole)-30], tensor.ErrMalformed, "truncated"},
		"only its beginning":   {whole[:40], tensor.ErrMalformed, "truncated"},
		"header overwritten":   {edit(whole, "PK\x03\x04", "PK\x03\x05")[:], tensor.ErrMalformed, "not a PyTorch checkpoint"},
		"second header gone":   {append(bytes.Clone(whole[:60]), bytes.ReplaceAll(whole[60:], []byte("PK\x03\x04"), []byte("PK\x03\x05"))...), tensor.ErrMalformed, `zip entry "a/data/0"`},
		"Git LFS":              {[]byte("version https://git-lfs.github.com/spec/v1\noid sha256:0"), tensor.ErrMalformed, "Git LFS"},
		"something else":       {[]byte("GGUF\x03\x00\x00\x00\x00\x00"), tensor.ErrMalformed, `begins with "GGUF\x03\x00\x00\x00\x00"`},
		"nothing":              {nil, tensor.ErrMalformed, "not a PyTorch checkpoint"},
		"entries share bytes":  {shared(t, 50), tensor.ErrMalformed, "more bytes than the file has"},
		"entry beyond the end": {beyond(t), tensor.ErrMalformed, "more bytes than the file has"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseBytes(c.file)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
		})
	}
	_, err := parseBytes(whole)
	require.NoError(t, err)

	// What zip writes for folders, and other records of torch's, do not matter.
	_, err = parseBytes(file("a/", "", "a/data.pkl", good, "a/data/", "", "a/data/0", data, "a/version", "3\n", "a/.data/serialization_id", "1"))
	require.NoError(t, err)
}

// shared is an archive whose directory names one large entry many times, each
// under a name of its own.
func shared(t *testing.T, n int) []byte {
	t.Helper()
	list := []string{"a/data.pkl", proto2 + "N.", "a/data/00", strings.Repeat("x", 1000)}
	b := file(list...)
	at := bytes.Index(b, []byte("PK\x01\x02"))
	second := at + 4 + bytes.Index(b[at+4:], []byte("PK\x01\x02"))
	end := bytes.Index(b, []byte("PK\x05\x06"))
	record := string(b[second:end])
	dir := string(b[at:second])
	for i := range n {
		dir += strings.Replace(record, "a/data/00", fmt.Sprintf("a/data/%02d", i), 1)
	}
	tail := bytes.Clone(b[end:])
	binary.LittleEndian.PutUint16(tail[8:], uint16(n+1))
	binary.LittleEndian.PutUint16(tail[10:], uint16(n+1))
	binary.LittleEndian.PutUint32(tail[12:], uint32(len(dir)))
	return append(append(bytes.Clone(b[:at]), dir...), tail...)
}

// beyond is an archive that gives an entry a size of 4 GB.
func beyond(t *testing.T) []byte {
	t.Helper()
	b := file("a/data.pkl", proto2+"N.")
	at := bytes.Index(b, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(b[at+20:], math.MaxUint32-1)
	binary.LittleEndian.PutUint32(b[at+24:], math.MaxUint32-1)
	return b
}

// TestEntryInTheTail moves an entry so that it ends beyond the file.
func TestEntryInTheTail(t *testing.T) {
	b := file("a/data.pkl", proto2+dictWith(text("a"), floats(8))+".", "a/data/0", strings.Repeat("x", 32))
	at := bytes.LastIndex(b, []byte("PK\x01\x02"))
	// A copy of the local header as the comment at the end of the file.
	local := bytes.LastIndex(b, []byte("PK\x03\x04"))
	comment := b[local : local+30+len("a/data/0")]
	binary.LittleEndian.PutUint16(b[len(b)-2:], uint16(len(comment)))
	binary.LittleEndian.PutUint32(b[at+42:], uint32(len(b)))
	_, err := parseBytes(append(b, comment...))
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, `truncated: zip entry "a/data/0" ends at byte`)
}

// TestBigEndianDtype turns bytes of a dtype without a storage class around too.
// PyTorch 2.15 does not, which is no way to read what was written.
func TestBigEndianDtype(t *testing.T) {
	p := proto2 + dictWith(text("a"), call(name("torch._utils", "_rebuild_tensor_v3"), storageID("UntypedStorage", "0", 4), number(0), ints(2), ints(1), "\x89", "}", name("torch", "uint16"))) + "."
	src, err := parseBytes(file("a/data.pkl", p, "a/byteorder", "big", "a/data/0", "\x01\x02\x03\x04"))
	require.NoError(t, err)
	require.Equal(t, "\x02\x01\x04\x03", string(tensortest.Bytes(t, src, "a")))
}

// TestMemory bounds what a pickle may build, whatever it repeats.
func TestMemory(t *testing.T) {
	for name, pickle := range map[string]string{
		"tuples":  proto2 + "(" + strings.Repeat(")", 1<<18) + "t.",
		"strings": proto2 + "](" + strings.Repeat(text(strings.Repeat("x", 1000)), 2000) + "e.",
		"tensors": proto2 + "]" + name("torch._utils", "_rebuild_tensor_v2") + "q\x00" + tupleWith(storageID("FloatStorage", "0", 8), number(0), ints(make([]int64, 64)...), ints(make([]int64, 64)...), "\x89", "}") + "q\x01" +
			"(" + strings.Repeat("h\x00h\x01R", 20000) + "t.",
		"copies": proto2 + name("collections", "OrderedDict") + "q\x00](" + strings.Repeat("NN\x86", 1000) + "e\x85q\x01(" + strings.Repeat("h\x00h\x01R", 1000) + "t.",
	} {
		t.Run(name, func(t *testing.T) {
			m := &machine{in: newInput(strings.NewReader(pickle), 0, int64(len(pickle))), memo: make(map[uint32]any), free: 1 << 20,
				load: func([]any) (any, error) { return &storage{bytes: 32, dtype: untyped}, nil }}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := m.run()
			runtime.ReadMemStats(&after)
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			require.ErrorContains(t, err, "bytes of memory")
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20), "what it counts is what it takes, but for slices that grow")
		})
	}
}

// TestHostileMemory runs all hostile pickles and looks at what they allocate.
func TestHostileMemory(t *testing.T) {
	for _, c := range hostile {
		b := pickled(c.pickle)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := parseBytes(b)
		runtime.ReadMemStats(&after)
		require.Error(t, err)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20+100*len(c.pickle)), c.name)
	}
}

// sparse is a file with holes: what is written in pieces of a mebibyte or more
// is zeros and kept nowhere.
type sparse struct {
	pieces []piece
	size   int64
}

type piece struct {
	at   int64
	data []byte
}

func (s *sparse) Write(p []byte) (int, error) {
	if len(p) < 1<<20 {
		s.pieces = append(s.pieces, piece{s.size, bytes.Clone(p)})
	}
	s.size += int64(len(p))
	return len(p), nil
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	i, _ := slices.BinarySearchFunc(s.pieces, off, func(x piece, off int64) int {
		if x.at+int64(len(x.data)) <= off {
			return -1
		}
		return 1
	})
	for _, x := range s.pieces[i:] {
		if x.at >= off+int64(len(p)) {
			break
		}
		if x.at < off {
			copy(p, x.data[off-x.at:])
		} else {
			copy(p[x.at-off:], x.data)
		}
	}
	if rest := s.size - off; rest < int64(len(p)) {
		return int(max(0, rest)), io.EOF
	}
	return len(p), nil
}

// TestStreaming reads an archive of 13 GiB, and the last bytes of its tensors,
// in a few mebibytes of memory.
func TestStreaming(t *testing.T) {
	const rows, cols = 1 << 16, 3 << 14 // 6 GiB of HalfStorage
	const half = rows * cols
	pickle := proto2 + dictWith(
		text("first"), tensorOf(storageID("HalfStorage", "0", half), 0, ints(rows, cols), ints(cols, 1)),
		text("transposed"), tensorOf(storageID("HalfStorage", "1", half+3), 0, ints(cols, rows), ints(1, cols)),
		text("last"), tensorOf(storageID("HalfStorage", "1", half+3), half, ints(3), ints(1)),
		text("expanded"), tensorOf(storageID("HalfStorage", "1", half+3), half, ints(1<<40, 3), ints(0, 1)),
	) + "."
	f := &sparse{}
	w := zip.NewWriter(f)
	zeros := make([]byte, 64<<20)
	for _, e := range []struct {
		name string
		zero int64
		data string
	}{{"a/data.pkl", 0, pickle}, {"a/data/0", 2 * half, ""}, {"a/data/1", 2 * half, "abcdef"}} {
		size := uint64(e.zero) + uint64(len(e.data))
		out, err := w.CreateRaw(&zip.FileHeader{Name: e.name, Method: zip.Store, CompressedSize64: size, UncompressedSize64: size})
		require.NoError(t, err)
		for left := e.zero; left > 0; left -= int64(len(zeros)) {
			require.NoError(t, w.Flush())
			_, err = out.Write(zeros)
			require.NoError(t, err)
		}
		_, err = io.WriteString(out, e.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.Greater(t, f.size, int64(12<<30))

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	src, err := Parse(f, f.size)
	require.NoError(t, err)
	tail := func(name string, size int64, want string) {
		r, err := src.Raw(name)
		require.NoError(t, err)
		require.Equal(t, size, r.Size())
		b := make([]byte, len(want))
		_, err = r.ReadAt(b, size-int64(len(b)))
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}
	tail("first", 2*half, "\x00\x00")
	tail("transposed", 2*half, "\x00\x00")
	tail("last", 6, "abcdef")
	tail("expanded", 6<<40, "fabcdef")
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(24<<20))
}

// TestLargeDirectory gives up on a directory that is larger than that of any
// checkpoint, before it is in memory.
func TestLargeDirectory(t *testing.T) {
	f := &sparse{}
	w := zip.NewWriter(f)
	for i := range 1000 {
		_, err := w.CreateHeader(&zip.FileHeader{Name: fmt.Sprintf("a/%060000d", i), Method: zip.Store})
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	_, err := Parse(f, f.size)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, "a zip directory of more than")
}

// TestDisk checks that an error of the disk is no fault of the file.
func TestDisk(t *testing.T) {
	b := pickled(proto2 + dictWith(text("a"), floats(8)) + ".")
	for n := range 12 {
		_, err := Parse(&flaky{bytes.NewReader(b), n}, int64(len(b)))
		if err == nil {
			require.Greater(t, n, 4)
			return
		}
		require.ErrorIs(t, err, io.ErrNoProgress)
		require.NotErrorIs(t, err, tensor.ErrMalformed)
	}
	t.Fatal("twelve reads were not enough")
}

// flaky reads n times and then no more.
type flaky struct {
	io.ReaderAt
	n int
}

func (f *flaky) ReadAt(p []byte, off int64) (int, error) {
	if f.n--; f.n < 0 {
		return 0, io.ErrNoProgress
	}
	return f.ReaderAt.ReadAt(p, off)
}
