package factors

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
)

// Every combination of PEFT's has its golden. What PEFT does to factors is compared factor by
// factor, but for cat and svd, which split a product in another way.
func TestCombinationsArePEFTs(t *testing.T) {
	f, err := safetensors.Open("testdata/combine.safetensors")
	require.NoError(t, err)
	defer f.Close()
	of := func(name, module string) *Pair {
		a, err := f.Info(name + "." + module + ".lora_A.weight")
		require.NoError(t, err)
		b, err := f.Info(name + "." + module + ".lora_B.weight")
		require.NoError(t, err)
		return &Pair{
			Out: int(b.Shape[0]), In: int(a.Shape[1]), Rank: int(a.Shape[0]), Scale: float64(tensortest.Floats(t, f, name+"."+module+".scale")[0]),
			A: tensortest.Floats(t, f, a.Name), B: tensortest.Floats(t, f, b.Name),
		}
	}
	for golden, c := range map[string]struct {
		method string
		Options
	}{
		"cat":             {"cat", Options{}},
		"svd":             {"svd", Options{Rank: 2}},
		"linear":          {"peft-linear", Options{}},
		"ties":            {"peft-ties", Options{Density: 0.6}},
		"ties_frequency":  {"peft-ties", Options{Density: 0.8, Frequency: true}},
		"magnitude_prune": {"peft-magnitude_prune", Options{Density: 0.35}},
		"dare_linear_all": {"peft-dare_linear", Options{Density: 1}},
		"dare_ties_all":   {"peft-dare_ties", Options{Density: 1}},
	} {
		m, err := ByName(c.method)
		require.NoError(t, err)
		for suffix, weights := range map[string][]float64{"": {0.75, 1.5}, "_negative": {0.6, -1.25}} {
			for _, module := range []string{"up", "down"} {
				want := of(golden+suffix, module)
				parts := []Part{{of("first", module), weights[0]}, {of("second", module), weights[1]}}
				got, err := m.Combine(parts, c.Options)
				require.NoError(t, err)
				require.Less(t, apart(delta(want), delta(got)), 2e-6, "%s%s %s", golden, suffix, module)
				_, own, err := m.Apart(parts, got)
				require.NoError(t, err)
				sum, err := cat(parts, Options{})
				require.NoError(t, err)
				require.InDelta(t, apart(delta(sum), delta(want)), own, 2e-6, "%s%s: the error that is told", golden, suffix)
				if strings.HasPrefix(c.method, "peft-") {
					require.InDeltaSlice(t, want.A, got.A, 1e-6, "%s%s %s", golden, suffix, module)
					require.InDeltaSlice(t, want.B, got.B, 1e-6, "%s%s %s", golden, suffix, module)
				}
			}
		}
	}
}
