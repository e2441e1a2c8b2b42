package combine

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

var codecs = tensor.NewCodecs(floats.Codecs()...)

func open(t *testing.T, path string) tensor.Source {
	t.Helper()
	f, err := safetensors.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// TestAgreesWithThePeers combines what mergekit and PEFT combined, with the numbers that they
// drew.
func TestAgreesWithThePeers(t *testing.T) {
	var golden struct {
		Cases []struct {
			Peer, Method, Tensor string
			Parameters           map[string]any
			Each                 []map[string]any
		}
	}
	text, err := os.ReadFile("testdata/cases.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &golden))
	require.Greater(t, len(golden.Cases), 100)
	inputs, results := open(t, "testdata/inputs.safetensors"), open(t, "testdata/results.safetensors")
	done := make(map[string]bool)
	for n, c := range golden.Cases {
		name := fmt.Sprintf("%d %s %s %s %v %v", n, c.Peer, c.Method, c.Tensor, c.Parameters, c.Each)
		m, err := ByName(c.Method)
		require.NoError(t, err)
		done[m.Name] = true
		base, err := inputs.Info(c.Tensor + ".base")
		require.NoError(t, err)
		absolute := m.Absolute // as mergekit has it
		var rows []tensor.Rows
		for i := range c.Each {
			r := Opened(inputs, codecs, fmt.Sprintf("%s.model%d", c.Tensor, i))
			if !absolute {
				r = Difference(r, Opened(inputs, codecs, base.Name))
			}
			rows = append(rows, r)
		}
		p := m.Defaults(len(rows), absolute)
		if c.Peer == "peft" {
			if slices.Contains(m.Uses, "seed") {
				p.Rescale = RescaleDensity
			}
			p.Normalize = slices.Contains(m.Uses, "majority_sign_method")
		}
		set := func(name string, i int, v any) {
			q, err := m.Parameter(name)
			require.NoError(t, err, name)
			require.NoError(t, q.Set(&p, i, v))
		}
		for name, v := range c.Parameters {
			for i := range rows {
				set(name, i, v) // PEFT has one for all
			}
		}
		var drawn [][]float32
		for i, each := range c.Each {
			for name, v := range each {
				set(name, i, v)
			}
			u := []float32{}
			if key := fmt.Sprintf("%d.drawn%d", n, i); tensor.Has(results, key) {
				u = tensortest.Floats(t, results, key)
			}
			drawn = append(drawn, u)
		}
		next := 0
		p.uniform = func(i int, target string) uniform {
			require.Equal(t, base.Name, target)
			u := uniform{given: []float32{}} // not a number more than the peer drew
			if p.Each[i].Density < 1 && len(drawn[next]) > 0 {
				u.given = drawn[next]
				next++
			}
			return u
		}
		combined, err := m.Combine(base.Name, base.Shape, rows, p)
		require.NoError(t, err, name)
		change := Replaced(base.Name, combined)
		if !absolute {
			change = merge.Sum(Added(base.Name, combined))
		}
		v, err := merge.View(inputs, codecs, []merge.Change{change}, func(i tensor.Info) tensor.DType { return i.DType })
		require.NoError(t, err)
		got := tensortest.Floats(t, v, base.Name)
		for i, want := range tensortest.Floats(t, results, fmt.Sprint(n)) {
			require.InDelta(t, want, got[i], 1e-6*(1+math.Abs(float64(want))), "%s: element %d", name, i)
		}
	}
	for _, m := range ofRows() {
		require.True(t, done[m.Name], "%s has no golden", m.Name)
	}
}
