package ggml

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// encoded is what ggml made of kindRows and of a real model: hashes of blocks.
type encoded struct {
	Rows, Importance string // of the input
	Encoded          map[string]struct {
		Kinds     map[string]string // the beginning of that of each kind
		All, Real string
	}
}

// weighted are the types whose blocks with importance these goldens have.
var weighted = []tensor.DType{tensor.IQ4_NL, tensor.IQ4_XS}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func bytesOf(x []float32) []byte {
	b := make([]byte, 4*len(x))
	kernel.EncodeF32(b, x)
	return b
}

// realRows returns the weights of stories260K as rows of kindCols.
func realRows(t testing.TB) []float32 {
	b, err := os.ReadFile("../../../cmd/nibble/demo/stories260K/model.safetensors")
	require.NoError(t, err)
	b = b[8+binary.LittleEndian.Uint64(b):]
	x := make([]float32, len(b)/4/kindCols*kindCols)
	kernel.DecodeF32(x, b[:4*len(x)])
	return x
}

// Rows of every kind, and those of a real model, are stored with ggml's bytes, with and
// without an importance matrix.
func TestEncodesManyAsGGML(t *testing.T) {
	var golden encoded
	require.NoError(t, json.Unmarshal(readFile(t, "encoded.json"), &golden))
	x, importance, real := kindRows(0, 512), kindImportance(), realRows(t)
	require.Equal(t, golden.Rows, sum(bytesOf(x)), "the rows are not those of the script")
	require.Equal(t, golden.Importance, sum(bytesOf(importance)))
	for name, want := range golden.Encoded {
		t.Run(name, func(t *testing.T) {
			name, withImportance := strings.CutSuffix(name, " weighted")
			typ := byName(t, name)
			elems, size := typ.dtype.Block()
			encode := func(x []float32) []byte {
				b := make([]byte, int64(len(x))/elems*size)
				if withImportance {
					typ.weighted(b, x, importance)
				} else {
					typ.encode(b, x)
				}
				return b
			}
			b := encode(x)
			row := len(b) / (len(x) / kindCols)
			for i, kind := range kinds {
				var part []byte
				for at := i * row; at < len(b); at += len(kinds) * row {
					part = append(part, b[at:at+row]...)
				}
				require.Equal(t, want.Kinds[kind.name], sum(part)[:16], "%s", kind.name)
			}
			require.Equal(t, want.All, sum(b))
			require.Equal(t, want.Real, sum(encode(real)), "stories260K")
		})
	}
}

// The rows of rows.bin are stored with ggml's bytes with an importance matrix too.
func TestEncodesNonlinearWeightedAsGGML(t *testing.T) {
	rows, importance := rows(t), kindImportance()[:rowLen]
	for _, dtype := range weighted {
		elems, size := dtype.Block()
		want := readFile(t, strings.ToLower(dtype.String())+"_weighted.bin")
		got := make([]byte, len(want))
		byName(t, dtype.String()).weighted(got, rows, importance)
		for i := int64(0); i < int64(len(want)); i += size {
			at := i / size * elems
			require.Equal(t, want[i:i+size], got[i:i+size], "%v block of %v", dtype, rows[at:at+elems])
		}
	}
}
