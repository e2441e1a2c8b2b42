package ggml

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

const noiseRows, noiseCols = 128, 1280

// noise16 is n times four numbers that mean nothing.
func noise16(name string, n int) [][4]int {
	h := sha3.NewSHAKE128()
	h.Write([]byte(name))
	b := make([]byte, 8*n)
	h.Read(b)
	list := make([][4]int, n)
	for i := range list {
		for j := range list[i] {
			list[i][j] = int(binary.LittleEndian.Uint16(b[8*i+2*j:]))
		}
	}
	return list
}

// noiseValues are rows of every kind, made of noise: testdata/gen/gguf_encode_goldens.py
// makes the same.
func noiseValues() []float32 {
	u := noise16("rows", noiseRows*noiseCols)
	x := make([]float32, len(u))
	for i, d := range u {
		row, col := i/noiseCols, i%noiseCols
		sum := d[0] + d[1] + d[2] + d[3] - 2*65535
		v := float32(sum) / 65536
		switch row % 8 {
		case 1:
			v = v * 65536 / float32(d[0]+1)
		case 2:
			v *= 1.0 / (1 << 20)
		case 3:
			v *= float32(math.Ldexp(1, u[row*noiseCols+col/16*16][0]/2048-16))
		case 4:
			v = float32(sum>>13) / 2
		case 5:
			if d[0] >= 2000 {
				v = 0
			}
		case 6:
			v *= 1e30
		case 7:
			bits := uint32(d[0] | d[1]<<16)
			if bits>>23&255 == 255 {
				bits = 0x3f800000
			}
			v = math.Float32frombits(bits)
		}
		x[i] = v
	}
	return x
}

// noiseImportance is made of noise too; a quarter of it are zeros.
func noiseImportance(n int) []float32 {
	x := make([]float32, n)
	for i, d := range noise16("importance", n) {
		if d[0]%4 != 0 {
			v := float32(d[0]) / 65536
			x[i] = v * v
		}
	}
	return x
}

// encoded are hashes of what ggml makes of the noise.
type encoded struct {
	Input, Importance string
	Plain, Weighted   map[string]string
}

func encodedGoldens(t *testing.T) (e encoded) {
	require.NoError(t, json.Unmarshal(readFile(t, "encoded.json"), &e))
	return e
}

func sha(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// encodeAll stores whole rows of values, of len(importance) if there is any.
func (b blocks) encodeAll(x, importance []float32) []byte {
	elems, size := b.dtype.Block()
	dst := make([]byte, int64(len(x))/elems*size)
	if importance != nil {
		b.weighted(dst, x, importance)
	} else {
		b.encode(dst, x)
	}
	return dst
}

// With every variant of the loops, what is made of noise is what ggml makes of it,
// with importance and without.
func TestEncodesNoiseAsGGML(t *testing.T) {
	want, x, importance := encodedGoldens(t), noiseValues(), noiseImportance(noiseCols)
	require.Equal(t, want.Input, hash(x))
	require.Equal(t, want.Importance, hash(importance))
	for _, variant := range kernel.Variants() {
		require.NoError(t, kernel.With(variant, func() error {
			for name, hash := range want.Plain {
				require.Equal(t, hash, sha(byName(t, name).encodeAll(x, nil)), "%s, %s", name, variant)
			}
			for name, hash := range want.Weighted {
				require.Equal(t, hash, sha(byName(t, name).encodeAll(x, importance)), "%s with importance, %s", name, variant)
			}
			return nil
		}))
	}
}

// What is made of rows.bin with importance is what ggml makes of it.
func TestEncodesWeightedAsGGML(t *testing.T) {
	x, importance := rows(t), noiseImportance(rowLen)
	for name := range encodedGoldens(t).Weighted {
		t.Run(name, func(t *testing.T) {
			typ := byName(t, name)
			elems, size := typ.dtype.Block()
			want := readFile(t, strings.ToLower(name)+"_weighted.bin")
			got := typ.encodeAll(x, importance)
			require.Len(t, got, len(want))
			for i := int64(0); i < int64(len(want)); i += size {
				at := i / size * elems
				require.Equal(t, want[i:i+size], got[i:i+size], "block of %v", x[at:at+elems])
			}
		})
	}
}

// Those that mind importance are WeightedEncoders, and without any they encode as
// all do; rows are stored the same alone and together.
func TestWeightedEncoder(t *testing.T) {
	const cols, n = 768, 5
	x, importance := noiseValues()[:n*cols], noiseImportance(cols)
	codecs := tensor.NewCodecs(Codecs()...)
	for _, typ := range types() {
		if typ.encode == nil {
			continue
		}
		enc, ok := codecs[typ.dtype].(tensor.WeightedEncoder)
		require.Equal(t, typ.weighted != nil, ok, "%v", typ.dtype)
		if !ok {
			continue
		}
		plain, got := typ.encodeAll(x, nil), make([]byte, len(typ.encodeAll(x, nil)))
		enc.EncodeWeighted(got, x, nil)
		require.Equal(t, plain, got)
		enc.EncodeWeighted(got, x, importance)
		require.NotEqual(t, plain, got)
		size := len(got) / n
		for row := range n {
			alone := make([]byte, size)
			enc.EncodeWeighted(alone, x[row*cols:(row+1)*cols], importance)
			require.Equal(t, alone, got[row*size:(row+1)*size], "%v, row %d", typ.dtype, row)
		}
	}
}

// With importance too, what cannot be stored does not pass for something that can,
// and another row is none the worse for it.
func TestNotFiniteWeighted(t *testing.T) {
	for _, typ := range types() {
		if typ.weighted == nil {
			continue
		}
		elems, size := typ.dtype.Block()
		importance := noiseImportance(int(elems))
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
			for _, at := range []int64{0, elems / 2, elems - 1} {
				x := make([]float32, 2*elems)
				for i := range x {
					x[i] = float32(i) - 20
				}
				other := typ.encodeAll(x, importance)[size:]
				x[at] = bad
				q := typ.encodeAll(x, importance)
				for _, v := range typ.all(q)[:elems] {
					require.False(t, math.Abs(float64(v)) <= math.MaxFloat32, "%v with %v at %d", typ.dtype, bad, at)
				}
				require.True(t, bytes.Equal(other, q[size:]), "the next block is not touched")
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	x := noiseValues()[:noiseCols]
	for len(x) < 1<<16 {
		x = append(x, x...)
	}
	x = x[:1<<16]
	for _, typ := range types() {
		for _, importance := range [][]float32{nil, noiseImportance(1 << 10)} {
			if importance == nil && typ.encode == nil || importance != nil && typ.weighted == nil {
				continue
			}
			b.Run(fmt.Sprintf("%v/importance=%v", typ.dtype, importance != nil), func(b *testing.B) {
				b.SetBytes(int64(4 * len(x)))
				for b.Loop() {
					typ.encodeAll(x, importance)
				}
			})
		}
	}
}
