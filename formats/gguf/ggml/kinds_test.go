package ggml

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
)

// kindHashes is what ggml made of kindRows and of a real model: hashes of blocks.
type kindHashes struct {
	Rows, Importance string // of the input
	Encoded          map[string]struct {
		Kinds     map[string]string // the beginning of that of each kind
		All, Real string
	}
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
func TestEncodesKindsAsGGML(t *testing.T) {
	var golden kindHashes
	require.NoError(t, json.Unmarshal(readFile(t, "kinds.json"), &golden))
	x, importance, real := kindRows(0, 512), kindImportance(), realRows(t)
	require.Equal(t, golden.Rows, hash(x), "the rows are not those of the script")
	require.Equal(t, golden.Importance, hash(importance))
	for name, want := range golden.Encoded {
		t.Run(name, func(t *testing.T) {
			name, withImportance := strings.CutSuffix(name, " weighted")
			typ := byName(t, name)
			var weights []float32
			if withImportance {
				weights = importance
			}
			b := typ.encodeAll(x, weights)
			row := len(b) / (len(x) / kindCols)
			for i, kind := range kinds {
				var part []byte
				for at := i * row; at < len(b); at += len(kinds) * row {
					part = append(part, b[at:at+row]...)
				}
				require.Equal(t, want.Kinds[kind.name], sha(part)[:16], "%s", kind.name)
			}
			require.Equal(t, want.All, sha(b))
			require.Equal(t, want.Real, sha(typ.encodeAll(real, weights)), "stories260K")
		})
	}
}
