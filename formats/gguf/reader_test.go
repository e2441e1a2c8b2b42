package gguf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

func parse(b []byte) (*tensor.Table, error) { return Parse(bytes.NewReader(b), int64(len(b))) }

func mustParse(t testing.TB, b []byte) *tensor.Table {
	t.Helper()
	src, err := parse(b)
	require.NoError(t, err)
	return src
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return b
}

// stories returns the real file, with made-up data behind its real header.
func stories(t testing.TB) []byte {
	b := readFile(t, "stories260K.head")
	data := make([]byte, 1185376-len(b))
	for i := range data {
		data[i] = byte(uint32(i) * 2654435761 >> 13)
	}
	// Some tensors do not fill their last 32 bytes; the padding is zeros.
	src := mustParse(t, append(bytes.Clone(b), data...))
	at := 0
	for info := range src.All() {
		end := at + int(info.Size())
		for at = end; at%32 != 0; at++ {
			data[at] = 0
		}
	}
	return append(b, data...)
}

func TestStories(t *testing.T) {
	src := mustParse(t, stories(t))
	tensortest.TestSource(t, src)

	require.Len(t, src.Meta(), 19)
	arch, _ := tensor.Lookup[string](src.Meta(), KeyArchitecture)
	require.Equal(t, "llama", arch)
	eps, _ := tensor.Lookup[float32](src.Meta(), "llama.attention.layer_norm_rms_epsilon")
	require.Equal(t, float32(1e-5), eps)
	tokens, _ := tensor.Lookup[[]string](src.Meta(), "tokenizer.ggml.tokens")
	require.Len(t, tokens, 512)
	require.Equal(t, []string{"<unk>", "<s>", "</s>", "<0x00>"}, tokens[:4])
	scores, _ := tensor.Lookup[[]float32](src.Meta(), "tokenizer.ggml.scores")
	require.Len(t, scores, 512)

	n := 0
	for range src.All() {
		n++
	}
	require.Equal(t, 48, n)
	embd, err := src.Info("token_embd.weight")
	require.NoError(t, err)
	require.Equal(t, tensor.Info{Name: "token_embd.weight", DType: tensor.F32, Shape: tensor.Shape{512, 64}}, embd)
}

// What ggml's own writer has made is read value for value.
func TestReadsGGML(t *testing.T) {
	src := mustParse(t, readFile(t, "ggml.gguf"))
	tensortest.TestSource(t, src)
	require.Equal(t, tensor.Meta{
		{Key: "one.u8", Value: uint8(255)}, {Key: "many.u8", Value: []uint8{0, 255, 1}}, {Key: "none.u8", Value: []uint8{}},
		{Key: "one.i8", Value: int8(127)}, {Key: "many.i8", Value: []int8{-128, 127, 1}}, {Key: "none.i8", Value: []int8{}},
		{Key: "one.u16", Value: uint16(65535)}, {Key: "many.u16", Value: []uint16{0, 65535, 1}}, {Key: "none.u16", Value: []uint16{}},
		{Key: "one.i16", Value: int16(32767)}, {Key: "many.i16", Value: []int16{-32768, 32767, 1}}, {Key: "none.i16", Value: []int16{}},
		{Key: "one.u32", Value: uint32(math.MaxUint32)}, {Key: "many.u32", Value: []uint32{0, math.MaxUint32, 1}}, {Key: "none.u32", Value: []uint32{}},
		{Key: "one.i32", Value: int32(math.MaxInt32)}, {Key: "many.i32", Value: []int32{math.MinInt32, math.MaxInt32, 1}}, {Key: "none.i32", Value: []int32{}},
		{Key: "one.f32", Value: float32(math.MaxFloat32)}, {Key: "many.f32", Value: []float32{-0.1, math.MaxFloat32, 1}}, {Key: "none.f32", Value: []float32{}},
		{Key: "one.u64", Value: uint64(math.MaxUint64)}, {Key: "many.u64", Value: []uint64{0, math.MaxUint64, 1}}, {Key: "none.u64", Value: []uint64{}},
		{Key: "one.i64", Value: int64(math.MaxInt64)}, {Key: "many.i64", Value: []int64{math.MinInt64, math.MaxInt64, 1}}, {Key: "none.i64", Value: []int64{}},
		{Key: "one.f64", Value: float64(math.MaxFloat64)}, {Key: "many.f64", Value: []float64{-0.1, math.MaxFloat64, 1}}, {Key: "none.f64", Value: []float64{}},
		{Key: "one.bool", Value: true}, {Key: "one.false", Value: false}, {Key: "many.bool", Value: []bool{false, true, true}}, {Key: "none.bool", Value: []bool{}},
		{Key: "one.str", Value: "▁naïve"}, {Key: "one.empty", Value: ""}, {Key: "many.str", Value: []string{"", "a", "▁naïve", "\n\t\"\\"}}, {Key: "none.str", Value: []string{}},
	}, src.Meta())

	want := []tensor.Info{
		{Name: "token_embd.weight", DType: tensor.F32, Shape: tensor.Shape{3, 32}},
		{Name: "f16", DType: tensor.F16, Shape: tensor.Shape{5}},
		{Name: "bf16", DType: tensor.BF16, Shape: tensor.Shape{2, 3, 7}},
		{Name: "q8_0", DType: tensor.Q8_0, Shape: tensor.Shape{2, 64}},
		{Name: "q4_k", DType: tensor.Q4_K, Shape: tensor.Shape{2, 256}},
		{Name: "four", DType: tensor.I32, Shape: tensor.Shape{2, 3, 1, 2}},
		{Name: "f64", DType: tensor.F64, Shape: tensor.Shape{1}},
		{Name: "empty", DType: tensor.F32, Shape: tensor.Shape{4, 0}},
		{Name: "nvfp4", DType: tensor.NVFP4, Shape: tensor.Shape{64}},
	}
	i := 0
	for info := range src.All() {
		require.Equal(t, want[i], info)
		for j, c := range tensortest.Bytes(t, src, info.Name) {
			require.Equal(t, byte((7*i+3*j)%251), c, "%s, byte %d", info.Name, j)
		}
		i++
	}
	require.Equal(t, len(want), i)
}

func TestReadsGGUFPy(t *testing.T) {
	src := mustParse(t, readFile(t, "gguf-py.gguf"))
	tensortest.TestSource(t, src)
	ft, _ := tensor.Lookup[uint32](src.Meta(), KeyFileType)
	require.Equal(t, "Q8_0", FileType(ft).String())
	qv, _ := tensor.Lookup[uint32](src.Meta(), KeyQuantizationVersion)
	require.Equal(t, QuantizationVersion, qv)
	gate, err := src.Info("blk.0.ffn_gate_inp_shexp.weight")
	require.NoError(t, err)
	require.Equal(t, tensor.Shape{1, 8}, gate.Shape)
	q, err := src.Info("blk.0.attn_q.weight")
	require.NoError(t, err)
	require.Equal(t, tensor.Info{Name: "blk.0.attn_q.weight", DType: tensor.Q8_0, Shape: tensor.Shape{3, 64}}, q)
}

// The table of types is ggml's, and so are the sizes of their blocks.
func TestTypes(t *testing.T) {
	var rows []struct {
		ID           uint32
		Name         string
		Block, Bytes int64
	}
	require.NoError(t, json.Unmarshal(readFile(t, "types.json"), &rows))
	require.Len(t, rows, len(dtypes))
	for _, row := range rows {
		d, err := dtypeOf(row.ID)
		if row.Block == 0 {
			require.ErrorIs(t, err, tensor.ErrUnsupported, "%s is gone", row.Name)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, row.Name, ggmlName(d))
		elems, size := d.Block()
		require.Equal(t, row.Block, elems, "%v", d)
		require.Equal(t, row.Bytes, size, "%v", d)
		id, ok := TypeID(d)
		require.True(t, ok)
		require.Equal(t, row.ID, id)
	}
	for _, d := range []tensor.DType{tensor.Invalid, tensor.Bool, tensor.U8, tensor.F8_E4M3, tensor.NF4, tensor.FP4} {
		_, ok := TypeID(d)
		require.False(t, ok, "%v", d)
	}
}

// ggmlName spells a type as ggml prints it: lower case, but for the K types.
func ggmlName(d tensor.DType) string {
	s := strings.ToLower(d.String())
	if strings.HasSuffix(s, "_k") {
		s = s[:len(s)-1] + "K"
	}
	return s
}

func TestFileType(t *testing.T) {
	for d, want := range map[tensor.DType]FileType{tensor.F32: 0, tensor.F16: 1, tensor.Q8_0: 7, tensor.BF16: 32} {
		ft, ok := FileTypeOf(d)
		require.True(t, ok)
		require.Equal(t, want, ft)
		require.Equal(t, d.String(), ft.String())
	}
	for _, d := range []tensor.DType{tensor.Q4_K, tensor.I8, tensor.NF4, tensor.Invalid} {
		_, ok := FileTypeOf(d)
		require.False(t, ok, "%v", d)
	}
	require.Equal(t, "Q4_K_M", FileType(15).String())
	require.Equal(t, "Q2_0", FileType(41).String())
	require.Equal(t, "FileType(5)", FileType(5).String())
	require.Equal(t, "FileType(1024)", FileType(1024).String())
}

// Sound files at the edge of the rules. ggml's reader accepts each, on a machine
// of its byte order.
func sound(o order) map[string][]byte {
	head, info := layout{o}.head, layout{o}.info
	v2 := head(0, 1, "a", tU8, uint8(1))
	o.PutUint32(v2[4:], 2)
	return map[string][]byte{
		"nothing in it":       head(0, 0),
		"version 2":           v2,
		"alignment 64":        pad(head(2, 1, KeyAlignment, tU32, uint32(64), info("a", gF32, 0, 1), info("b", gF32, 64, 1)), 64, 128),
		"alignment 8":         pad(head(2, 1, KeyAlignment, tU32, uint32(8), info("a", gF32, 0, 1), info("b", gF32, 8, 1)), 8, 16),
		"alignment 1":         append(head(2, 1, KeyAlignment, tU32, uint32(1), info("a", gF16, 0, 3), info("b", gF32, 6, 1)), make([]byte, 10)...),
		"no padding at end":   pad(head(1, 0, info("a", gF32, 0, 1)), 32, 4),
		"bytes after the end": pad(head(1, 0, info("a", gF32, 0, 1)), 32, 1000),
		"no dimensions":       pad(head(1, 0, info("a", gF32, 0)), 32, 32),
		"no elements":         pad(head(2, 0, info("a", gF32, 0, 5, 0), info("b", gQ8_0, 0, 0)), 32, 0),
		"no rows, if vast":    pad(head(1, 0, info("a", gF32, 0, 1<<61, 1<<61, 0)), 32, 0),
		"63 bytes of name":    pad(head(1, 0, info(strings.Repeat("n", 63), gF32, 0, 1)), 32, 4),
		"an empty name":       pad(head(1, 0, info("", gF32, 0, 1)), 32, 4),
		"not UTF-8":           head(0, 1, "a\xff", tString, "\xfe"),
		"one part":            head(0, 1, KeySplitCount, tU16, uint16(1)),
		"empty array":         head(0, 1, "a", tArray, tString, uint64(0)),
		"long array":          head(0, 1, "a", tArray, tF32, uint64(40000), make([]float32, 40000)),
		"long string":         head(0, 1, "a", tString, strings.Repeat("long ", 20000)),
		"no padding, no data": head(0, 1, "a", tU8, uint8(1)),
	}
}

func TestSound(t *testing.T) {
	for _, o := range orders {
		for name, b := range sound(o) {
			t.Run(o.String()+"/"+name, func(t *testing.T) {
				tensortest.TestSource(t, mustParse(t, b))
				roundTrip(t, b)
			})
		}
		src := mustParse(t, sound(o)["no dimensions"])
		a, err := src.Info("a")
		require.NoError(t, err)
		require.Equal(t, tensor.Shape{1}, a.Shape)
		src = mustParse(t, sound(o)["long array"])
		long, ok := tensor.Lookup[[]float32](src.Meta(), "a")
		require.True(t, ok)
		require.Len(t, long, 40000)
	}
}

// fault is a file that must be refused.
type fault struct {
	file []byte
	kind error
	says []string // in the error
	hint string   // in the hint
}

func faults(o order) map[string]fault {
	head, info := layout{o}.head, layout{o}.info
	bad, un := tensor.ErrMalformed, tensor.ErrUnsupported
	withVersion := func(v uint32) []byte { b := head(0, 0); o.PutUint32(b[4:], v); return b }
	one := func(typ uint32, offset uint64, dims ...uint64) []byte {
		return pad(head(1, 0, info("w", typ, offset, dims...)), 32, 4096)
	}
	kv := func(parts ...any) []byte { return head(0, 1, append([]any{"k"}, parts...)...) }
	cut := head(0, 1, "some.key", tString, "value", info("w", gF32, 0, 4))
	deep := head(1, 0, info("w", gF32, 0, 4, 1, 1, 1))
	return map[string]fault{
		"empty file":         {nil, bad, []string{"byte 0", "magic", "4 bytes", "0 left"}, "cut short"},
		"not GGUF":           {[]byte("PK\x03\x04 some archive or other"), bad, []string{"not a GGUF file", `PK\x03\x04`}, ""},
		"magic only":         {[]byte("GGUF"), bad, []string{"byte 4", "version"}, "cut short"},
		"version 0":          {withVersion(0), bad, []string{"version 0"}, ""},
		"version 1":          {withVersion(1), un, []string{"version 1"}, "convert"},
		"version 4":          {withVersion(4), un, []string{"version 4"}, "newer"},
		"version 256":        {withVersion(256), un, []string{"version 256"}, "newer"},
		"negative tensors":   {head(1<<63, 0), bad, []string{"byte 8", "tensor count is negative"}, ""},
		"negative metadata":  {head(0, math.MaxUint64), bad, []string{"byte 16", "metadata count is negative: -1"}, ""},
		"too many tensors":   {head(1<<40, 0), bad, []string{"tensor count 1099511627776"}, "cut short"},
		"too much metadata":  {head(0, 1<<62), bad, []string{"metadata count 4611686018427387904"}, "cut short"},
		"cut in counts":      {cut[:20], bad, []string{"byte 16", "metadata count"}, "cut short"},
		"cut in key":         {cut[:38], bad, []string{"metadata entry 0", "byte 32", "8 bytes", "6 left"}, "cut short"},
		"cut in value":       {cut[:50], bad, []string{"some.key"}, "cut short"},
		"cut in tensor name": {head(1, 0, strings.Repeat("n", 40))[:24+8+30], bad, []string{"tensor 0", "40 bytes", "30 left"}, "cut short"},
		"cut in dimensions":  {deep[:24+9+4+8+8+3], bad, []string{`tensor "w"`, "byte 53", "a dimension"}, "cut short"},
		"cut before type":    {deep[:24+9+4+4*8], bad, []string{`tensor "w"`, "byte 69", "a type"}, "cut short"},
		"cut before offset":  {deep[:24+9+4+4*8+4], bad, []string{`tensor "w"`, "byte 73", "an offset"}, "cut short"},

		"empty key":               {head(0, 1, "", tU8, uint8(1), uint64(0)), bad, []string{"metadata entry 0", "byte 24", "empty key"}, ""},
		"key too long":            {head(0, 1, uint64(1<<62), make([]byte, 40)), bad, []string{"metadata entry 0", "byte 32", "4611686018427387904 bytes"}, "cut short"},
		"key twice":               {head(0, 2, "k", tU8, uint8(1), "k", tU8, uint8(2)), bad, []string{`"k" occurs twice`, "byte 38"}, ""},
		"unknown value type":      {kv(uint32(13), uint64(0)), bad, []string{`key "k"`, "byte 33", "value type 13"}, ""},
		"huge value type":         {kv(uint32(math.MaxUint32), uint64(0)), bad, []string{"value type 4294967295"}, ""},
		"unknown element type":    {kv(tArray, uint32(99), uint64(0)), bad, []string{"value type 99"}, ""},
		"array of arrays":         {kv(tArray, tArray, uint64(1), tU8, uint64(0)), un, []string{`key "k"`, "array of arrays"}, ""},
		"string too long":         {kv(tString, uint64(1000), []byte("short")), bad, []string{`key "k"`, "byte 45", "1000 bytes", "5 left"}, "cut short"},
		"string of 2^64-1":        {kv(tString, uint64(math.MaxUint64), []byte("short")), bad, []string{"18446744073709551615"}, "cut short"},
		"array too long":          {kv(tArray, tU32, uint64(3), make([]byte, 11)), bad, []string{"array of 3 elements", "12 bytes", "11 left"}, "cut short"},
		"array overflows":         {kv(tArray, tU64, uint64(1<<61), make([]byte, 11)), bad, []string{"array of 2305843009213693952 elements"}, "cut short"},
		"array of 2^64-1":         {kv(tArray, tU8, uint64(math.MaxUint64), make([]byte, 11)), bad, []string{"array of 18446744073709551615 elements"}, "cut short"},
		"strings too many":        {kv(tArray, tString, uint64(3), make([]byte, 23)), bad, []string{"24 bytes", "23 left"}, "cut short"},
		"string in array":         {kv(tArray, tString, uint64(2), "ok", uint64(9), []byte("short")), bad, []string{`key "k"`, "9 bytes"}, "cut short"},
		"bool of 2":               {kv(tBool, uint8(2)), bad, []string{`key "k"`, "byte 37", "bool of 2"}, ""},
		"bool of 255 in array":    {kv(tArray, tBool, uint64(3), []byte{0, 1, 255}), bad, []string{"byte 51", "bool of 255"}, ""},
		"alignment 0":             {head(0, 1, KeyAlignment, tU32, uint32(0)), bad, []string{KeyAlignment, "is 0", "power of two"}, ""},
		"alignment 48":            {head(0, 1, KeyAlignment, tU32, uint32(48)), bad, []string{"is 48", "power of two"}, ""},
		"alignment of uint64":     {head(0, 1, KeyAlignment, tU64, uint64(32)), bad, []string{"uint64, not a uint32"}, ""},
		"alignment of array":      {head(0, 1, KeyAlignment, tArray, tU32, uint64(1), uint32(32)), bad, []string{"[]uint32, not a uint32"}, ""},
		"split":                   {head(0, 3, KeySplitCount, tU16, uint16(7), KeySplitNo, tU16, uint16(1), KeySplitTensors, tI32, int32(9)), un, []string{KeySplitCount, "7 files"}, "by its name"},
		"split count of string":   {head(0, 1, KeySplitCount, tString, "7"), bad, []string{KeySplitCount, "string, not uint16"}, ""},
		"more metadata than said": {pad(head(1, 0, "k", tU8, uint8(1), info("w", gF32, 0, 1)), 32, 64), un, []string{`"k"`, "type "}, "damaged"},

		"name of 64 bytes":       {pad(head(1, 0, info(strings.Repeat("n", 64), gF32, 0, 1)), 32, 4), bad, []string{"byte 24", "64 bytes", "63"}, ""},
		"zero byte in name":      {pad(head(1, 0, info("a\x00b", gF32, 0, 1)), 32, 4), bad, []string{`"a\x00b"`, "zero byte"}, ""},
		"name too long":          {pad(head(1, 0, uint64(1<<40), uint64(0), uint64(0)), 32, 4), bad, []string{"tensor 0", "1099511627776"}, "cut short"},
		"tensor twice":           {pad(head(2, 0, info("w", gF32, 0, 1), info("w", gF32, 32, 1)), 32, 64), bad, []string{`"w" occurs twice`, "byte 57"}, ""},
		"five dimensions":        {one(gF32, 0, 1, 1, 1, 1, 1), bad, []string{`"w"`, "byte 33", "5 dimensions"}, ""},
		"2^32-1 dimensions":      {pad(head(1, 0, "w", uint32(math.MaxUint32), make([]byte, 64)), 32, 0), bad, []string{"4294967295 dimensions"}, ""},
		"negative dimension":     {one(gF32, 0, math.MaxUint64), bad, []string{`"w"`, "byte 37", "dimension of -1"}, ""},
		"negative inner":         {one(gF32, 0, 4, 1<<63, 2), bad, []string{"dimension of -9223372036854775808"}, ""},
		"elements overflow":      {one(gF32, 0, 1<<32, 1<<31), bad, []string{`"w"`, "64 bits"}, ""},
		"elements wrap to 0":     {one(gF32, 0, 1<<32, 1<<32), bad, []string{`"w"`, "64 bits"}, ""},
		"2^63-1 elements":        {one(24, 0, math.MaxInt64), bad, []string{`"w"`, "64 bits"}, ""},
		"none of too many":       {one(gF32, 0, 0, 1<<32, 1<<32), bad, []string{`"w"`, "64 bits"}, ""},
		"bytes overflow":         {one(gF32, 0, 1<<62), bad, []string{`"w"`, "64 bits"}, ""},
		"removed type 4":         {one(4, 0, 32), un, []string{`"w"`, "byte 45", "type 4", "removed"}, "convert"},
		"removed type 31":        {one(31, 0, 32), un, []string{"type 31", "removed"}, "convert"},
		"type 43":                {one(43, 0, 32), un, []string{"type 43"}, "newer"},
		"type 2^32-1":            {one(math.MaxUint32, 0, 32), un, []string{"type 4294967295"}, "newer"},
		"half a block":           {one(gQ8_0, 0, 48), bad, []string{`"w"`, "row length 48", "block size 32", "Q8_0"}, ""},
		"rows of half a block":   {one(gQ4_0, 0, 16, 2), bad, []string{"row length 16", "block size 32"}, ""},
		"first offset":           {one(gF32, 32, 1), bad, []string{`"w"`, "byte 49", "offset 32, not 0"}, ""},
		"negative offset":        {one(gF32, 1<<63, 1), bad, []string{"offset 9223372036854775808, not 0"}, ""},
		"gap":                    {pad(head(2, 0, info("a", gF32, 0, 1), info("b", gF32, 64, 1)), 32, 128), bad, []string{`"b"`, "offset 64, not 32"}, ""},
		"overlap":                {pad(head(2, 0, info("a", gF32, 0, 9), info("b", gF32, 32, 1)), 32, 128), bad, []string{`"b"`, "offset 32, not 64"}, ""},
		"out of order":           {pad(head(2, 0, info("b", gF32, 32, 1), info("a", gF32, 0, 1)), 32, 128), bad, []string{`"b"`, "offset 32, not 0"}, ""},
		"not aligned":            {pad(head(2, 0, info("a", gF32, 0, 1), info("b", gF32, 4, 1)), 32, 128), bad, []string{"offset 4, not 32"}, ""},
		"aligned to another":     {pad(head(2, 1, KeyAlignment, tU32, uint32(64), info("a", gF32, 0, 1), info("b", gF32, 32, 1)), 64, 128), bad, []string{"offset 32, not 64"}, ""},
		"sum of sizes overflows": {pad(head(2, 0, info("a", 24, 0, 1<<62), info("b", 24, 1<<62, 1<<62)), 32, 128), bad, []string{`"b"`, "64 bits"}, ""},
		"data cut":               {pad(head(1, 0, info("w", gF32, 0, 100)), 32, 399), bad, []string{`"w"`, "byte 463", "464 bytes"}, "cut short"},
		"second tensor cut":      {pad(head(2, 0, info("a", gF32, 0, 1), info("b", gF32, 32, 1)), 32, 35), bad, []string{`"b"`, "132 bytes"}, "cut short"},
		"no data":                {head(1, 0, info("w", gF32, 0, 100)), bad, []string{`"w"`, "464 bytes"}, "cut short"},
		"no room for padding":    {head(1, 0, info("w", gF32, 0, 0)), bad, []string{`"w"`}, "cut short"},
		"huge alignment":         {pad(head(1, 1, KeyAlignment, tU32, uint32(1<<31), info("w", gF32, 0, 1)), 32, 64), bad, []string{`"w"`, "2147483652 bytes"}, "cut short"},
		"more tensors than said": {head(3, 0, info("a", gF32, 0, 1), info("b", gF32, 32, 1)), bad, []string{"tensor 2", "length of a string", "0 left"}, "cut short"},
	}
}

func TestFaults(t *testing.T) {
	for _, o := range orders {
		for name, f := range faults(o) {
			t.Run(o.String()+"/"+name, func(t *testing.T) {
				_, err := parse(f.file)
				require.ErrorIs(t, err, f.kind)
				require.NotContains(t, err.Error(), "\n")
				for _, s := range f.says {
					require.Contains(t, err.Error(), s)
				}
				require.Contains(t, hint.Of(err), f.hint)
				if f.hint == "" {
					require.Empty(t, hint.Of(err))
				}
				path := filepath.Join(t.TempDir(), "f.gguf")
				require.NoError(t, os.WriteFile(path, f.file, 0o666))
				_, err = Open(path)
				require.ErrorIs(t, err, f.kind)
				require.Contains(t, err.Error(), path+": ", "the file is named")
			})
		}
	}
}

// Every cut through a file is refused, but for its last padding.
func TestEveryTruncation(t *testing.T) {
	b := readFile(t, "ggml.gguf")
	last := 0
	for n := range b {
		if _, err := parse(b[:n]); err == nil {
			last = n
			break
		} else {
			require.ErrorIs(t, err, tensor.ErrMalformed, "%d bytes", n)
			require.Contains(t, hint.Of(err), "cut short", "%d bytes", n)
		}
	}
	// The last tensor is of 36 bytes, padded to 64.
	require.Equal(t, len(b)-64+36, last)
}

// zeros is a file that has any size and no content but its beginning.
type zeros struct{ begin []byte }

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(z.begin)) {
		copy(p, z.begin[off:])
	}
	return len(p), nil
}

// What a file claims costs no memory, even where its size would allow it.
func TestClaimsAreNotBelieved(t *testing.T) {
	const size = 1 << 44
	for name, b := range map[string][]byte{
		"tensors": head(1<<38, 0),
		"entries": head(0, 1<<38),
		"string":  head(0, 1, "k", tString, uint64(1<<42)),
		"array":   head(0, 1, "k", tArray, tU8, uint64(1<<42)),
		"strings": head(0, 1, "k", tArray, tString, uint64(1<<40)),
		"key":     head(0, 1, uint64(1<<42)),
		"name":    head(1, 0, uint64(1<<42)),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Parse(zeros{b}, size)
			runtime.ReadMemStats(&after)
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			require.Contains(t, err.Error(), "268435456")
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
		})
	}
	// Within the limit the bytes have to be there.
	b := head(0, 1, "k", tString, uint64(200<<20))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Parse(bytes.NewReader(b), size)
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.Contains(t, err.Error(), "shorter")
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(32<<20))
}

// A header's names are compared in time that grows with their number, not with
// its square, which would be minutes here.
func TestManyNames(t *testing.T) {
	const n = 200_000
	file := func(last string) []byte {
		b := head(n, n)
		for i := range n {
			b = append(appendString(b, fmt.Sprintf("key.%06d", i)), pack(tU8, uint8(1))...)
		}
		for i := range n {
			name := fmt.Sprintf("tensor.%06d", i)
			if i == n-1 {
				name = last
			}
			b = append(b, info(name, gF32, 0, 0)...)
		}
		return pad(b, 32, 0)
	}
	src := mustParse(t, file("tensor.last"))
	require.Len(t, src.Meta(), n)
	_, err := src.Info("tensor.last")
	require.NoError(t, err)
	_, err = parse(file("tensor.000000"))
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, `"tensor.000000" occurs twice`)
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// A disk that fails is not a file that is malformed.
func TestReadError(t *testing.T) {
	broken := errors.New("input/output error")
	_, err := Parse(failing{broken}, 100)
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, tensor.ErrMalformed)
	require.NotErrorIs(t, err, tensor.ErrUnsupported)
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, os.WriteFile(path, readFile(t, "gguf-py.gguf"), 0o666))
	f, err := Open(path)
	require.NoError(t, err)
	tensortest.TestSource(t, f)
	r, err := f.Raw("blk.0.attn_norm.weight")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, os.ErrClosed)

	_, err = Open(filepath.Join(t.TempDir(), "none.gguf"))
	require.ErrorIs(t, err, os.ErrNotExist)
	dir := t.TempDir()
	_, err = Open(dir)
	require.ErrorIs(t, err, safeio.ErrRefused)
	require.ErrorContains(t, err, dir+": ")
}
