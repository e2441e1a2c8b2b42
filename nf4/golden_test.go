package nf4

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4/internal/golden"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

var codecs = tensor.NewCodecs(append(floats.Codecs(), Codecs()...)...)

// blob puts a tensor's parts together. absmax is as it is stored.
func blob(h Header, elems int64, m, nested, absmax, codes []byte) tensor.Memory {
	return bytes.Join([][]byte{h.Append(nil, elems), m, nested, absmax, codes}, nil)
}

func encodeAs(t *testing.T, d tensor.DType, values []float32) []byte {
	t.Helper()
	enc, err := codecs.Encoder(d)
	require.NoError(t, err)
	block, size := d.Block()
	b := make([]byte, int64(len(values))/block*size)
	enc.Encode(b, values)
	return b
}

// floatsOf returns the elements of a plain tensor.
func floatsOf(t *testing.T, src tensor.Source, name string) []float32 {
	t.Helper()
	_, v, err := codecs.ReadAll(src, name)
	require.NoError(t, err)
	return v
}

// same checks that two tensors of d hold the same bits, but for which NaN is
// stored.
func same(t *testing.T, d tensor.DType, want, got []byte, msg string) {
	t.Helper()
	if bytes.Equal(want, got) {
		return
	}
	require.Len(t, got, len(want), msg)
	decode := func(b []byte) []float32 {
		_, size := d.Block()
		rows, err := codecs.Open(tensor.Info{Name: "w", DType: d, Shape: tensor.Shape{1, int64(len(b)) / size}}, tensor.Memory(b))
		require.NoError(t, err)
		v := make([]float32, int64(len(b))/size)
		require.NoError(t, rows.ReadRows(v, 0))
		return v
	}
	w, g := decode(want), decode(got)
	for i := range w {
		if w[i] != w[i] && g[i] != g[i] {
			continue
		}
		require.Equal(t, math.Float32bits(w[i]), math.Float32bits(g[i]), "%s: element %d: %v %v", msg, i, w[i], g[i])
	}
}

func ulps(a, b float32) int64 {
	d := int64(int32(math.Float32bits(a))) - int64(int32(math.Float32bits(b)))
	return max(d, -d)
}

// Every case of the archive: codes, absmax, double quantization and the decoded
// bits in three dtypes.
func TestGolden(t *testing.T) {
	cases := 0
	for name, file := range golden.Files(t, "testdata") {
		if strings.Contains(name, "/") || !strings.Contains(name, "_b") {
			continue
		}
		cases++
		t.Run(strings.TrimSuffix(name, ".safetensors"), func(t *testing.T) {
			src, err := safetensors.Parse(bytes.NewReader(file), int64(len(file)))
			require.NoError(t, err)
			testCase(t, name, src)
		})
	}
	require.Equal(t, 24, cases)
}

func testCase(t *testing.T, name string, src tensor.Source) {
	d := tensor.NF4
	if strings.HasPrefix(name, "fp4") {
		d = tensor.FP4
	}
	double := tensor.Has(src, "nested_absmax")
	input, err := src.Info("input")
	require.NoError(t, err)
	x := floatsOf(t, src, "input")
	absmax := tensortest.Floats(t, src, "absmax_f32_plain")
	var state struct {
		BlockSize int64   `json:"blocksize"`
		Offset    float64 `json:"nested_offset"`
	}
	require.NoError(t, json.Unmarshal(tensortest.Bytes(t, src, "quant_state.bitsandbytes__"+strings.ToLower(d.String())), &state))

	enc, err := NewEncoder(d, int(state.BlockSize), int64(len(x)))
	require.NoError(t, err)
	codes, err := appendIn(enc, x, 172)
	if strings.HasPrefix(name, "naninf") {
		var bad *tensor.NonFiniteError
		require.ErrorAs(t, err, &bad)
		require.ErrorIs(t, err, tensor.ErrMalformed)
		require.True(t, math.IsNaN(float64(x[bad.Index])) || math.IsInf(float64(x[bad.Index]), 0))
		for _, v := range x[:bad.Index] {
			require.False(t, math.IsNaN(float64(v)) || math.IsInf(float64(v), 0))
		}
	} else {
		require.NoError(t, err)
		require.Equal(t, tensortest.Bytes(t, src, "packed"), codes)
		require.Equal(t, absmax, enc.Absmax())
	}

	h := Header{BlockSize: state.BlockSize, Double: double, Source: input.DType}
	var m, nested []byte
	if double {
		h.Offset = float32(state.Offset)
		require.LessOrEqual(t, ulps(h.Offset, Mean(absmax)), int64(2), "%v %v", h.Offset, Mean(absmax))
		m = tensortest.Bytes(t, src, "nested_quant_map")
		nested = tensortest.Bytes(t, src, "nested_absmax")
		got := doubleWith(absmax, h.Offset, kernel.NewMap8([256]float32(tensortest.Floats(t, src, "nested_quant_map"))))
		require.Equal(t, tensortest.Bytes(t, src, "absmax"), got.Absmax)
		require.Equal(t, tensortest.Floats(t, src, "nested_absmax"), got.NestedAbsmax)
	}
	info := h.Info("w", d, input.Shape)
	data := blob(h, input.Shape.Elems(), m, nested, tensortest.Bytes(t, src, "absmax"), tensortest.Bytes(t, src, "packed"))
	rows, err := codecs.Open(info, data)
	require.NoError(t, err)
	got := make([]float32, len(x))
	require.NoError(t, rows.ReadRows(got, 0))
	for key, d := range map[string]tensor.DType{"dequant_f32": tensor.F32, "dequant_bf16": tensor.BF16, "dequant_f16": tensor.F16} {
		same(t, d, tensortest.Bytes(t, src, key), encodeAs(t, d, got), key)
	}
}

// appendIn encodes x in panels of n elements.
func appendIn(enc *Encoder, x []float32, n int) (codes []byte, err error) {
	for len(x) > 0 {
		n = min(n, len(x))
		if codes, err = enc.Append(codes, x[:n]); err != nil {
			return nil, err
		}
		x = x[n:]
	}
	return enc.Finish(codes)
}

// The 8-bit code of a value, on random ones and on exact midpoints.
func TestDynamicGolden(t *testing.T) {
	file := golden.Files(t, "testdata")["q8_dynamic.safetensors"]
	src, err := safetensors.Parse(bytes.NewReader(file), int64(len(file)))
	require.NoError(t, err)
	m := (*[256]float32)(tensortest.Floats(t, src, "dynamic_map"))
	for i, v := range DynamicMap() {
		require.LessOrEqual(t, ulps(v, m[i]), int64(2), "entry %d", i)
	}
	for _, set := range []string{"rand", "mids"} {
		got := doubleWith(tensortest.Floats(t, src, set+".input"), 0, kernel.NewMap8(*m))
		require.Equal(t, tensortest.Bytes(t, src, set+".default.q"), got.Absmax, set)
		require.Equal(t, tensortest.Floats(t, src, set+".default.absmax"), got.NestedAbsmax, set)
		for i, want := range tensortest.Floats(t, src, set+".default.dequant") {
			require.Equal(t, want, undouble(m[got.Absmax[i]], got.NestedAbsmax[i/nestedBlock], 0))
		}
	}
}

// Slices of checkpoints on the hub, decoded by bitsandbytes' CUDA kernels.
func TestCUDA(t *testing.T) {
	for name, d := range map[string]tensor.DType{
		"llama_1b_nf4":              tensor.NF4,
		"llama_1b_nf4_double_quant": tensor.NF4,
		"qwen2_5_1_5b_nf4_dq":       tensor.NF4,
		"llama_1b_fp4":              tensor.FP4,
	} {
		t.Run(name, func(t *testing.T) {
			file, err := os.ReadFile(filepath.Join("testdata", "anamnesis", name+".bin"))
			require.NoError(t, err)
			// Sizes as testdata/README.md lists them.
			var head struct {
				Format, Elems, BlockSize, Codes, Absmax, Map, Nested, NestedMap, Want uint32
				Offset                                                                float32
			}
			r := bytes.NewReader(file)
			require.NoError(t, binary.Read(r, binary.LittleEndian, &head))
			part := func(n uint32) []byte {
				b := make([]byte, n)
				_, err := io.ReadFull(r, b)
				require.NoError(t, err)
				return b
			}
			codes, absmax, book := part(head.Codes), part(head.Absmax), part(head.Map)
			nested, m, want := part(head.Nested), part(head.NestedMap), part(head.Want)
			require.Zero(t, r.Len())

			values, err := Codebook(d)
			require.NoError(t, err)
			require.Equal(t, book, encodeAs(t, tensor.F32, values[:]))
			h := Header{BlockSize: int64(head.BlockSize), Double: head.Format == 2, Source: tensor.BF16, Offset: head.Offset}
			if h.Double {
				require.Equal(t, m, encodeAs(t, tensor.F32, dynamicMap[:]))
			}
			info := h.Info("w", d, tensor.Shape{1, int64(head.Elems)})
			rows, err := codecs.Open(info, blob(h, int64(head.Elems), m, nested, absmax, codes))
			require.NoError(t, err)
			got := make([]float32, head.Elems)
			require.NoError(t, rows.ReadRows(got, 0))
			if d == tensor.FP4 {
				// The CUDA kernel decodes code 8 to -0, the CPU's to 0.
				for i := 0; i < len(want); i += 2 {
					if want[i] == 0 && want[i+1] == 0x80 {
						want[i+1] = 0
					}
				}
			}
			same(t, tensor.BF16, want, encodeAs(t, tensor.BF16, got), name)
		})
	}
}
