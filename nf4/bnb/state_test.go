package bnb

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/python"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4/internal/golden"
	"github.com/seed18967229/nibble/tensor"
)

func TestRepr(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "repr.json"))
	require.NoError(t, err)
	var rows [][2]any
	require.NoError(t, json.Unmarshal(text, &rows))
	require.Greater(t, len(rows), 500)
	for _, r := range rows {
		v := math.Float32frombits(uint32(r[0].(float64)))
		require.Equal(t, r[1], string(python.AppendFloat(nil, float64(v))), "%08x", math.Float32bits(v))
	}
}

// Every quant_state of the archive, read and written again.
func TestStateGolden(t *testing.T) {
	n := 0
	for name := range golden.Files(t, filepath.Join("..", "testdata")) {
		if !strings.HasSuffix(name, ".safetensors") {
			continue
		}
		src := archive(t, name)
		for info := range src.All() {
			i := strings.Index(info.Name, stateInfix[1:])
			if i < 0 {
				continue
			}
			n++
			text := tensortest.Bytes(t, src, info.Name)
			requireRoundTrip(t, text)
		}
	}
	require.Equal(t, 24+2*14, n)
}

func requireRoundTrip(t *testing.T, text []byte) {
	t.Helper()
	s, err := parseState(text, strings.Contains(string(text), "nested"))
	require.NoError(t, err)
	var offset *float32
	if s.NestedOffset != nil {
		v := float32(*s.NestedOffset)
		offset = &v
	}
	require.Equal(t, string(text), string(stateText(*s.QuantType, int(*s.BlockSize), *s.DType, *s.Shape, offset)))
}

func FuzzState(f *testing.F) {
	zero := float32(0)
	tiny := float32(1e-7)
	f.Add([]byte(`{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 176], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05267333984375}`), true)
	f.Add(stateText("fp4", 128, "float16", tensor.Shape{3, 5}, nil), false)
	f.Add(stateText("nf4", 64, "float32", tensor.Shape{}, &zero), true)
	f.Add(stateText("nf4", 64, "float32", tensor.Shape{1}, &tiny), true)
	f.Add([]byte(`{"shape": null}`), false)
	f.Add([]byte(`{"quant_type":"nf4","blocksize":0,"dtype":"float16","shape":[],"nested_offset":0}`), false)
	f.Fuzz(func(t *testing.T, text []byte, nested bool) {
		s, err := parseState(text, nested)
		if err != nil {
			return
		}
		if s.Shape == nil {
			return // View refuses it, or knows it
		}
		require.NoError(t, s.Shape.Validate())
		var offset *float32
		if nested {
			v := float32(*s.NestedOffset)
			if math.IsInf(float64(v), 0) {
				return
			}
			offset = &v
		}
		if *s.QuantType != "nf4" && *s.QuantType != "fp4" {
			return // View refuses it
		}
		again, err := parseState(stateText(*s.QuantType, int(*s.BlockSize), *s.DType, *s.Shape, offset), nested)
		require.NoError(t, err)
		if nested {
			require.Equal(t, float32(*s.NestedOffset), float32(*again.NestedOffset))
			again.NestedOffset = s.NestedOffset
		}
		require.Equal(t, s, again)
	})
}

func TestSkip(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "skip.json"))
	require.NoError(t, err)
	var rows [][3]any
	require.NoError(t, json.Unmarshal(text, &rows))
	require.Greater(t, len(rows), 200)
	for _, r := range rows {
		m, err := newMatcher([]string{"no such module", r[0].(string)})
		require.NoError(t, err)
		pattern, got := m.match(r[1].(string))
		require.Equal(t, r[2], got, "pattern %q, module %q", r[0], r[1])
		if got {
			require.Equal(t, r[0], pattern)
		}
	}
	_, err = newMatcher([]string{"(?=x)"})
	require.ErrorIs(t, err, tensor.ErrUnsupported)
}
