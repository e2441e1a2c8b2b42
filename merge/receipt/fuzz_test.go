package receipt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

// seal makes a receipt of blocks and the text of a manifest.
func seal(blocks, text []byte) []byte {
	coded := encoder().EncodeAll(text, nil)
	sum := sha256.Sum256(coded)
	b := append([]byte(magic), blocks...)
	at := len(b)
	b = append(b, coded...)
	for _, n := range []int{at, len(coded), len(text)} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return append(append(b, sum[:]...), magic...)
}

// FuzzManifest restores by manifests of which the checksums are right and nothing else
// need be.
func FuzzManifest(f *testing.F) {
	const rows, cols = 5, 8
	w := tensortest.Normal("w", tensor.Shape{rows, cols}, 1, 1)
	src := tensortest.NewSource(f, nil, w)
	block := frame(codedResidual, []byte{0, 0, 0})
	literal := frame(codedStored, []byte("{}"))
	b, a := frame(codedStored, w.Data[:4*rows]), frame(codedStored, w.Data[:4*cols])
	blocks := bytes.Join([][]byte{b, a, block, literal}, nil)
	none := make([]byte, 64)
	for i := range none {
		none[i] = '0'
	}
	text, err := json.Marshal(manifest{
		Version: 1, Files: []fileEntry{{Name: "f", Size: 4*rows*cols + 2}, {Name: "k", Size: 3, Kept: string(none)}},
		Tensors: []tensorEntry{{
			Name: "w", DType: "F32", Shape: tensor.Shape{rows, cols}, Merged: "F32", Places: []place{{0, 2, 4 * rows * cols}}, SHA256: string(none),
			Factors: []factorEntry{{Rank: 1, Scale: 2, B: []int64{int64(len(b))}, A: []int64{int64(len(a))}}}, Blocks: []int64{int64(len(block))},
		}},
		Literals: []literalEntry{{Place: place{0, 0, 2}, SHA256: string(none), Blocks: []int64{int64(len(literal))}}},
	})
	require.NoError(f, err)
	_, err = parseManifest(text, int64(len(magic)+len(blocks)))
	require.NoError(f, err)
	f.Add(text)
	f.Add([]byte(`{"version":1,"files":[{"name":"f","size":0}]}`))
	codecs := tensor.NewCodecs(floats.Codecs()...)
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "receipt")
		require.NoError(t, os.WriteFile(path, seal(blocks, text), 0o600))
		r, err := Open(path)
		if err != nil {
			return
		}
		defer r.Close()
		if r.Size() > 1<<20 || r.Size() < 0 {
			return // the disk is not what is tested
		}
		_ = r.Check(context.Background(), src, t.TempDir())
		_, err = r.Restore(context.Background(), src, codecs, RestoreOptions{Out: filepath.Join(t.TempDir(), "out"), Dir: t.TempDir(), Progress: func(int64) {}})
		_ = err
	})
}

// FuzzBlock decodes blocks of which the checksums are right.
func FuzzBlock(f *testing.F) {
	const cols, elems = 96, 4 * 96
	kinds := []struct{ base, merged tensor.DType }{
		{tensor.BF16, tensor.BF16}, {tensor.F16, tensor.BF16}, {tensor.F32, tensor.F32}, {tensor.F32, tensor.Q8_0}, {tensor.NF4, tensor.BF16}, {tensor.INT8, tensor.F16},
	}
	values := func(seed uint64) (m, d []float32) {
		rng := rand.New(rand.NewPCG(seed, 1))
		for range elems {
			m, d = append(m, float32(rng.NormFloat64())), append(d, float32(rng.NormFloat64()))
		}
		return m, d
	}
	for i, k := range kinds {
		c := newCoder(k.base, 64, k.merged)
		m, d := values(uint64(i))
		base := make([]byte, c.size(elems))
		for j := range base {
			base[j] = byte(j * 7)
		}
		how, coded, err := c.encode(base, m, d, cols, true)
		require.NoError(f, err)
		f.Add(byte(i), how, coded)
		f.Add(byte(i), byte(codedScaled), append(make([]byte, 4*4), 3, 0, 0, 1, 2, 3))
	}
	f.Fuzz(func(t *testing.T, kind, how byte, coded []byte) {
		k := kinds[int(kind)%len(kinds)]
		c := newCoder(k.base, 64, k.merged)
		m, d := values(uint64(kind))
		base := make([]byte, c.size(elems))
		if c.decode(base, how, coded, m, d, cols) != nil {
			return
		}
		m, d = values(uint64(kind))
		how, coded, err := c.encode(base, m, d, cols, kind%2 == 0)
		require.NoError(t, err)
		again := make([]byte, len(base))
		m, d = values(uint64(kind))
		require.NoError(t, c.decode(again, how, coded, m, d, cols))
		require.Equal(t, base, again)
	})
}

// TestEveryBit codes what no prediction leads to: all bits of a type, with what is
// not finite, beside merged values near and far.
func TestEveryBit(t *testing.T) {
	for _, base := range []tensor.DType{tensor.BF16, tensor.F16, tensor.F32} {
		for _, merged := range []tensor.DType{tensor.BF16, tensor.F16, tensor.F32, tensor.Q8_0, tensor.Q4_K} {
			c := newCoder(base, 0, merged).(*floatCoder)
			const elems = 1 << 16
			stored := make([]byte, c.size(elems))
			m, d := make([]float32, elems), make([]float32, elems)
			rng := rand.New(rand.NewPCG(1, 1))
			for i := range elems {
				bits := uint32(i)
				if base == tensor.F32 {
					bits = rng.Uint32()
				}
				c.base.put(stored, i, bits)
				v := c.base.value(bits)
				if v-v != 0 || i%5 == 0 {
					v = float32(rng.NormFloat64())
				}
				d[i] = float32(rng.NormFloat64() * math.Exp(10*rng.NormFloat64()))
				if m[i] = v + d[i]; m[i]-m[i] != 0 {
					m[i], d[i] = 0, 0
				}
			}
			for _, exact := range []bool{true, false} {
				how, coded, err := c.encode(stored, append([]float32{}, m...), append([]float32{}, d...), 256, exact)
				require.NoError(t, err)
				got := make([]byte, len(stored))
				require.NoError(t, c.decode(got, how, coded, append([]float32{}, m...), append([]float32{}, d...), 256))
				require.True(t, bytes.Equal(stored, got), "%v to %v", base, merged)
			}
			// The corrections themselves, where a literal would be shorter.
			code := make([]byte, len(stored))
			c.predict(m, d, code)
			coded := c.encodeResidual(nil, stored, code, m, d)
			require.NoError(t, c.decodeResidual(coded, code, m, d))
			require.True(t, bytes.Equal(stored, code), "%v to %v", base, merged)
			require.Error(t, c.decodeResidual(coded[:len(coded)-1], code, m, d))
		}
	}
}
