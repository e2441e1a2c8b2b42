package ggml

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// rowLen is the length of the rows of rows.bin, of which the first few are
// normally distributed.
const rowLen, normalRows = 256, 8

// largest bounds the error of any value that a type stores and reads again,
// relative to the largest magnitude in its block. Every type that can be written
// has one. Those that search for scales have no such bound, and it is that of the
// random values here.
var largest = map[tensor.DType]float64{
	tensor.Q4_0:   largestQ4_0,
	tensor.Q4_1:   largestQ4_1,
	tensor.Q5_0:   largestQ5_0,
	tensor.Q5_1:   largestQ5_1,
	tensor.Q8_0:   largestQ8_0,
	tensor.Q2_K:   0.45,
	tensor.Q3_K:   0.3,
	tensor.Q4_K:   0.13,
	tensor.Q5_K:   0.065,
	tensor.Q6_K:   0.025,
	tensor.IQ4_NL: 0.14,
	tensor.IQ4_XS: 0.16,
	tensor.TQ1_0:  largestTQ,
	tensor.TQ2_0:  largestTQ,
	tensor.MXFP4:  largestMXFP4,
}

// searched are the types whose scale is searched for, and found to be another one in
// what has been stored.
var searched = []tensor.DType{tensor.Q2_K, tensor.Q3_K, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K, tensor.IQ4_NL, tensor.IQ4_XS}

// overflows are the types whose sums overflow long before their scales: of values
// from about 1e12 on they make zeros, as ggml does. An MXFP4 block can hold all.
var overflows = []tensor.DType{tensor.Q2_K, tensor.Q3_K, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K, tensor.IQ4_XS, tensor.MXFP4}

// Every block type there is can be read, and one that cannot be written does not
// look as if it could.
func TestCodecs(t *testing.T) {
	codecs := tensor.NewCodecs(Codecs()...) // panics if a type is there twice
	require.Len(t, codecs, len(types()))
	for d := tensor.Q4_0; d <= tensor.Q2_0; d++ {
		require.Contains(t, codecs, d, "%v", d)
	}
	for _, typ := range types() {
		enc, err := codecs.Encoder(typ.dtype)
		if typ.encode == nil {
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			continue
		}
		require.NoError(t, err)
		check := tensortest.TestEncoder
		if slices.Contains(searched, typ.dtype) {
			check = tensortest.TestStored
		}
		t.Run(typ.dtype.String(), func(t *testing.T) { check(t, enc, largest[typ.dtype]) })
	}
}

// decoded is what ggml read from the blocks of a type: hashes of float32 values,
// with every NaN made the same one.
type decoded struct {
	Aborts []int  // the rows that ggml dies of instead of storing; they are blocks of zeros
	All    string // of all rows
	Rows   string // the beginning of that of each row
	Noise  string // of random blocks
}

func goldens(t testing.TB) map[string]decoded {
	var m map[string]decoded
	require.NoError(t, json.Unmarshal(readFile(t, "decoded.json"), &m))
	require.Len(t, m, len(types()))
	return m
}

// stored returns the rows of rows.bin as ggml's blocks.
func stored(t testing.TB, d tensor.DType) []byte {
	return readFile(t, strings.ToLower(d.String())+".bin")
}

func readFile(t testing.TB, name string) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return b
}

func rows(t testing.TB) []float32 {
	b := readFile(t, "rows.bin")
	out := make([]float32, len(b)/4)
	kernel.DecodeF32(out, b)
	return out
}

// all decodes whole blocks.
func (b blocks) all(src []byte) []float32 {
	elems, size := b.dtype.Block()
	dst := make([]float32, int64(len(src))/size*elems)
	b.decode(dst, src)
	return dst
}

// hash returns the SHA-256 of the values, every NaN made the same one.
func hash(values []float32) string {
	b := make([]byte, 0, 4*len(values))
	for _, v := range values {
		if v != v {
			v = math.Float32frombits(0x7fc00000)
		}
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// What ggml has stored is read with ggml's bits.
func TestDecodesAsGGML(t *testing.T) {
	n := len(rows(t)) / rowLen
	for name, want := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			typ := byName(t, name)
			values := typ.all(stored(t, typ.dtype))
			rows := strings.Fields(want.Rows)
			require.Len(t, rows, n)
			for i, h := range rows {
				require.Equal(t, h, hash(values[i*rowLen : (i+1)*rowLen])[:8], "row %d", i)
			}
			require.Equal(t, want.All, hash(values))
		})
	}
}

// Any bytes are blocks, and are read with ggml's bits.
func TestDecodesNoiseAsGGML(t *testing.T) {
	for name, want := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			typ := byName(t, name)
			require.Equal(t, want.Noise, hash(typ.all(noise(name, typ.dtype))))
		})
	}
}

// noise is 1024 rows in random blocks.
func noise(name string, d tensor.DType) []byte {
	elems, size := d.Block()
	b := make([]byte, 1024*rowLen/elems*size)
	h := sha3.NewSHAKE128()
	h.Write([]byte(name))
	h.Read(b)
	return b
}

func byName(t testing.TB, name string) blocks {
	i := slices.IndexFunc(types(), func(b blocks) bool { return b.dtype.String() == name })
	require.GreaterOrEqual(t, i, 0, "%s", name)
	return types()[i]
}

// What can be written is written with ggml's bits.
func TestEncodesAsGGML(t *testing.T) {
	rows, want := rows(t), goldens(t)
	for _, typ := range types() {
		if typ.encode == nil {
			continue
		}
		t.Run(typ.dtype.String(), func(t *testing.T) {
			elems, size := typ.dtype.Block()
			stored := stored(t, typ.dtype)
			got := make([]byte, len(stored))
			typ.encode(got, rows)
			for i := int64(0); i < int64(len(stored)); i += size {
				at := i / size * elems
				if slices.Contains(want[typ.dtype.String()].Aborts, int(at/rowLen)) {
					continue
				}
				require.Equal(t, stored[i:i+size], got[i:i+size], "block of %v", rows[at:at+elems])
			}
		})
	}
}

// What ggml loses of normally distributed values is what each type's budget
// says.
func TestBudget(t *testing.T) {
	x := rows(t)[:normalRows*rowLen]
	for _, typ := range types() {
		y := typ.all(stored(t, typ.dtype))
		var err, sum float64
		for i, v := range x {
			e := float64(v) - float64(y[i])
			err += e * e
			sum += float64(v) * float64(v)
		}
		rms := math.Sqrt(err / sum)
		require.LessOrEqual(t, rms, typ.budget, "%v", typ.dtype)
		require.Greater(t, rms, 0.9*typ.budget, "%v: the budget is too generous", typ.dtype)
	}
}

// The blocks are those of real models, the values gguf-py's, rounded to
// bfloat16.
func TestRealModels(t *testing.T) {
	paths, err := filepath.Glob("testdata/anamnesis/*.bin")
	require.NoError(t, err)
	require.Len(t, paths, 19)
	for _, path := range paths {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			b := readFile(t, "anamnesis/"+name)
			n, size := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
			stored, want := b[16:16+size], b[16+size:]
			_, what, _ := strings.Cut(strings.TrimSuffix(name, ".bin"), "_")
			if strings.HasPrefix(name, "mistral_7b_") {
				what = strings.TrimPrefix(what, "7b_")
			}
			typ := byName(t, strings.ToUpper(what))
			values := typ.all(stored)
			require.Len(t, values, int(n))
			got := make([]byte, len(want))
			kernel.EncodeBF16(got, values)
			require.Equal(t, want, got)
			if typ.dtype == tensor.Q8_0 {
				again := make([]byte, size)
				typ.encode(again, values)
				require.Equal(t, stored, again)
			}
		})
	}
}

// FuzzDecode checks that any bytes can be decoded, and that rows decode the same
// alone and together, from memory and from a reader.
func FuzzDecode(f *testing.F) {
	for i, typ := range types() {
		f.Add(byte(i), byte(1), stored(f, typ.dtype)[:1024])
	}
	f.Fuzz(func(t *testing.T, which, width byte, b []byte) {
		typ := types()[int(which)%len(types())]
		elems, size := typ.dtype.Block()
		perRow := int64(width%4) + 1
		n := int64(len(b)) / (perRow * size)
		b = b[:n*perRow*size]
		info := tensor.Info{Name: "w", DType: typ.dtype, Shape: tensor.Shape{n, perRow * elems}}
		require.NoError(t, info.Validate())
		read := func(data tensor.Bytes, step int64) []uint32 {
			rows, err := typ.Open(info, data)
			require.NoError(t, err)
			out := make([]uint32, 0, info.Shape.Elems())
			for row := int64(0); row < n; row += step {
				dst := make([]float32, min(step, n-row)*info.Shape.Cols())
				require.NoError(t, rows.ReadRows(dst, row))
				for _, v := range dst {
					out = append(out, math.Float32bits(v)) // NaN is not equal to itself
				}
			}
			return out
		}
		whole := read(tensor.Memory(b), max(n, 1))
		require.True(t, slices.Equal(whole, read(tensor.Memory(b), 1)))
		require.True(t, slices.Equal(whole, read(tensor.ReaderBytes{R: bytes.NewReader(b)}, 2)))
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, typ := range types() {
		elems, size := typ.dtype.Block()
		x := make([]float32, 1<<20)
		q := make([]byte, int64(len(x))/elems*size)
		for i := range q {
			q[i] = byte(i * 7)
		}
		b.Run(typ.dtype.String(), func(b *testing.B) {
			b.SetBytes(int64(4 * len(x)))
			for b.Loop() {
				typ.decode(x, q)
			}
		})
	}
}
