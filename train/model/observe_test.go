package model

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/train/stream"
)

// inputs are the sums of the squares of what each weight was given, and how many
// rows those were.
type inputs struct {
	sums map[string][]float64
	rows map[string]int
}

func newInputs() *inputs { return &inputs{map[string][]float64{}, map[string]int{}} }

func (in *inputs) add(weight string, x []float64) {
	if in.sums[weight] == nil {
		in.sums[weight] = make([]float64, len(x))
	}
	for i, v := range x {
		in.sums[weight][i] += v * v
	}
	in.rows[weight]++
}

// Every weight that something is multiplied with is observed, with what a model
// written apart gives it: experts with what is routed to them, the head with all
// rows.
func TestObserver(t *testing.T) {
	for _, f := range arch.Families() {
		t.Run(f.Name, func(t *testing.T) {
			a := tensortest.TinyModel(t, f.Name, func(c *arch.Config) { c.NumHiddenLayers, c.WindowPattern = 2, 2 })
			s := setupOf(t, a)
			want := newInputs()
			r := s.reference(t)
			r.see = func(module string, x []float64) { want.add(module+".weight", x) }
			for _, list := range s.micro {
				for _, q := range list {
					r.logits(q.tokens[:len(q.tokens)-1])
				}
			}

			st, err := stream.New(s.src, codecs, s.arch, stream.Options{})
			require.NoError(t, err)
			defer st.Close()
			m, got := New(a, s.train, 64), newInputs()
			m.Observe(func(w arch.Tensor, x []float32, rows int) {
				require.Len(t, x, rows*w.In(), w.Name)
				for ; len(x) > 0; x = x[w.In():] {
					got.add(w.Name, wide(x[:w.In()]))
				}
			})
			xs, batches := s.final(t, m, st)
			_, err = m.Loss(xs, batches, st, false, 1)
			require.NoError(t, err)

			require.Equal(t, want.rows, got.rows)
			for name, sums := range want.sums {
				require.InDeltaSlice(t, sums, got.sums[name], 1e-5*(1+slices.Max(sums)), name)
			}

			m.Observe(nil)
			_, err = m.Loss(xs, batches, st, false, 1)
			require.NoError(t, err)
			require.Equal(t, want.rows, got.rows, "nobody is told any more")
		})
	}
}
