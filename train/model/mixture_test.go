package model

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/stream"
)

// TestGradientsOfMixtures trains everything, and adapters of the routers, of mixtures that
// choose one expert, some or all of them.
func TestGradientsOfMixtures(t *testing.T) {
	for _, c := range []struct {
		family string
		used   int64
		change func(c *arch.Config)
	}{
		{"mixtral", 3, func(c *arch.Config) { c.SlidingWindow = 3 }},
		{"mixtral", 5, nil},
		{"qwen2moe", 1, func(c *arch.Config) { c.NumExperts = 2 }},
		{"qwen2moe", 5, nil},
		{"qwen2moe", 2, func(c *arch.Config) { c.NumExperts, c.NormTopKProb = 3, true }},
		{"qwen2moe", 2, func(c *arch.Config) { c.NumHiddenLayers, c.NumExperts, c.MLPOnlyLayers = 2, 3, []int64{0} }},
		{"qwen3moe", 2, func(c *arch.Config) { c.NormTopKProb = false }},
		{"qwen3moe", 4, func(c *arch.Config) { c.NumHiddenLayers, c.DecoderSparseStep, c.AttentionBias = 2, 2, true }},
	} {
		t.Run(fmt.Sprint(c.family, " ", c.used), func(t *testing.T) {
			t.Parallel()
			s := setupOf(t, tensortest.TinyModel(t, c.family, func(x *arch.Config) {
				x.NumHiddenLayers, x.NumExpertsPerTok = 1, c.used
				if c.change != nil {
					c.change(x)
				}
			}))
			s.full(t)
			s.adaptRouters(t)
			s.checkGradients(t, 1)
		})
	}
}

// adaptRouters adds adapters to the routers, and to what opens shared experts.
func (s *setup) adaptRouters(t *testing.T) {
	for _, x := range s.arch.Tensors() {
		if x.Role == arch.Router || x.Role == arch.SharedRouter {
			ad := filled(t, NewAdapter(x, 2, 0.7, 0, 1))
			for i, v := range uniform(ad.B.Name, len(ad.B.Data)) {
				ad.B.Data[i] = float32(v)
			}
			s.train.Adapters[x.Module()] = ad
		}
	}
}

// One expert of those that are chosen alone has the weight 1, whatever its score: the
// router learns nothing.
func TestOneNormalizedExpertTeachesNoRouter(t *testing.T) {
	s := setupOf(t, tensortest.TinyModel(t, "qwen3moe", func(c *arch.Config) { c.NumExpertsPerTok = 1 }))
	s.full(t)
	s.pass(t, 2)
	for _, p := range s.params() {
		if x, _ := s.arch.Find(arch.Router, "weight", max(0, p.Layer)); x.Name == p.Name {
			require.LessOrEqual(t, kernel.Absmax(p.Grad), float32(1e-7), p.Name)
		}
	}
}

// TestEqualExpertsAreOneMLP gives all experts of a mixture the weights of a dense
// model's MLP: it computes the same, and its experts' gradients add up to the MLP's.
func TestEqualExpertsAreOneMLP(t *testing.T) {
	dense := setupOf(t, tensortest.TinyModel(t, "llama", nil))
	s := setupOf(t, tensortest.TinyModel(t, "mixtral", func(c *arch.Config) { c.NormEps = dense.arch.NormEps }))
	old := s.src
	twin := func(x arch.Tensor) string {
		if x.Expert < 0 {
			return x.Name
		}
		d, ok := dense.arch.Find(x.Role, "weight", x.Layer)
		require.True(t, ok)
		return d.Name
	}
	var list []tensortest.Tensor
	for _, x := range s.arch.Tensors() {
		src := dense.src
		if x.Role == arch.Router {
			src = old
		}
		list = append(list, tensortest.Float32(x.Name, x.Dims, tensortest.Floats(t, src, twin(x))))
	}
	s.src = tensortest.NewSource(t, nil, list...)
	dense.full(t)
	s.full(t)
	want, got := dense.pass(t, 2), s.pass(t, 2)
	for k := range want {
		require.InEpsilon(t, want[k], got[k], 1e-6)
	}
	sums := make(map[string][]float32)
	for _, x := range s.arch.Tensors() {
		grad := s.train.Params[x.Name].Grad
		if x.Role == arch.Router {
			require.Less(t, kernel.Absmax(grad), float32(1e-6), "all are equally good")
			continue
		}
		if sums[twin(x)] == nil {
			sums[twin(x)] = make([]float32, len(grad))
		}
		kernel.Add(sums[twin(x)], grad)
	}
	require.Len(t, sums, len(dense.train.Params))
	for name, sum := range sums {
		close32(t, dense.train.Params[name].Grad, sum, 1e-5, name)
	}
}

// close32 requires that two vectors differ by no more than a share of the largest
// element.
func close32(t *testing.T, want, got []float32, share float64, what string) {
	t.Helper()
	require.Len(t, got, len(want), what)
	allowed := share * float64(kernel.Absmax(want))
	for i, v := range want {
		if math.Abs(float64(v-got[i])) > allowed {
			require.InDelta(t, v, got[i], allowed, "%s, element %d", what, i)
		}
	}
}

func TestBitsOfMixturesDoNotDependOnHow(t *testing.T) {
	for _, family := range []string{"mixtral", "qwen2moe"} {
		s := setupOf(t, tensortest.TinyModel(t, family, nil))
		s.adapt(t, 3, 1.7, s.arch.LinearModules()...)
		s.adaptRouters(t)
		s.dropout = true
		for _, a := range s.train.Adapters {
			a.Dropout = 0.4
		}
		old := runtime.GOMAXPROCS(1)
		defer runtime.GOMAXPROCS(old)
		want, loss := s.grads(t, 2)
		for _, procs := range []int{1, 2, 7} {
			for _, slots := range []int{2, 3} {
				runtime.GOMAXPROCS(procs)
				got, gotLoss := s.grads(t, slots)
				require.Equal(t, loss, gotLoss, "%s, %d processors, %d slots", family, procs, slots)
				require.Equal(t, want, got, "%s, %d processors, %d slots", family, procs, slots)
			}
		}
	}
}

// sparse leases a block and has none of its experts until they are waited for.
type sparse struct {
	*stream.Lease
	t        *testing.T
	experts  map[string]int // the matrices of experts
	asked    []int
	there    map[int]bool
	missing  int // cannot be read
	requests int
}

var errMissing = errors.New("unreadable")

func (s *sparse) Experts(which []int) func(int) error {
	s.requests++
	s.asked = append(s.asked, which...)
	require.True(s.t, slices.IsSorted(which))
	return func(e int) error {
		require.Contains(s.t, which, e)
		if e == s.missing {
			return errMissing
		}
		s.there[e] = true
		return nil
	}
}

func (s *sparse) Matrix(name string) (kernel.Matrix, error) {
	if e, ok := s.experts[name]; ok && !s.there[e] {
		return nil, fmt.Errorf("expert %d is not there", e)
	}
	return s.Lease.Matrix(name)
}

// TestOnlyWhatRowsAreRoutedToIsRead counts the experts that a model written apart
// sends rows to: those, and no others, are asked for and waited for, forward and back.
func TestOnlyWhatRowsAreRoutedToIsRead(t *testing.T) {
	for _, family := range []string{"mixtral", "qwen2moe", "qwen3moe"} {
		s := setupOf(t, tensortest.TinyModel(t, family, func(c *arch.Config) { c.NumHiddenLayers, c.NumExperts = 1, 11 }))
		s.adapt(t, 2, 1, s.arch.LinearModules()...)
		tokens := s.micro[0][1].tokens
		experts := make(map[string]int)
		modules := make(map[string]int)
		for _, x := range s.arch.Block(0) {
			if x.Expert >= 0 {
				experts[x.Name], modules[x.Module()] = x.Expert, x.Expert
			}
		}
		want := make(map[int]bool)
		r := s.reference(t)
		r.see = func(module string, _ []float64) {
			if e, ok := modules[module]; ok {
				want[e] = true
			}
		}
		r.logits(tokens)
		routed := slices.Sorted(maps.Keys(want))
		require.Less(t, len(routed), 11, "some are not needed")

		st, err := stream.New(s.src, codecs, s.arch, stream.Options{})
		require.NoError(t, err)
		defer st.Close()
		m := New(s.arch, s.train, 64)
		b := &Batch{}
		b.AddWhole(tokens, 0)
		x := make([]float32, len(tokens)*m.Hidden())
		require.NoError(t, m.Embed(x, b.Tokens, b.Pos, st))
		lease, err := st.Lease(context.Background(), 0)
		require.NoError(t, err)
		fresh := func(missing int) (*sparse, *Block) {
			w := &sparse{Lease: lease, t: t, experts: experts, there: map[int]bool{}, missing: missing}
			block, err := m.Block(0, w)
			require.NoError(t, err)
			require.Zero(t, w.requests, "nothing is read before it is known what")
			return w, block
		}
		w, block := fresh(-1)
		y := slices.Clone(x)
		require.NoError(t, block.Forward(y, b, nil, nil))
		require.Equal(t, routed, w.asked)
		require.Equal(t, want, w.there)

		w, block = fresh(-1)
		dx := slices.Clone(y)
		require.NoError(t, block.Backward(dx, x, b, nil, nil))
		require.Equal(t, routed, w.asked, "the way back chooses the same")
		for module, ad := range s.train.Adapters {
			if e, ok := modules[module]; ok {
				require.Equal(t, want[e], kernel.Absmax(ad.A.Grad) > 0, module)
			}
		}

		_, block = fresh(routed[1])
		err = block.Forward(slices.Clone(x), b, nil, nil)
		require.ErrorIs(t, err, errMissing)
		require.ErrorContains(t, err, fmt.Sprintf("expert %d", routed[1]))
		require.ErrorIs(t, block.Backward(slices.Clone(x), x, b, nil, nil), errMissing)

		w, block = fresh(-1)
		require.NoError(t, block.Extend(slices.Clone(x[:m.Hidden()]), b.Pos[:1], m.NewCache()))
		require.Len(t, w.asked, int(s.arch.NumExpertsPerTok), "one token is routed to few")
		lease.Release()
	}
}

// A mixture whose router gives all the same score takes the first experts, as a
// stable sort does.
func TestEqualScoresTakeTheFirst(t *testing.T) {
	a := tensortest.TinyModel(t, "mixtral", func(c *arch.Config) { c.NumHiddenLayers = 1 })
	s := setupOf(t, a)
	s.src = undecided(t, a, s.src)
	s.full(t)
	s.pass(t, 2)
	for _, x := range a.Block(0) {
		if x.Expert >= 0 {
			require.Equal(t, x.Expert < 2, kernel.Absmax(s.train.Params[x.Name].Grad) > 0, x.Name)
		}
	}
}

// undecided returns a model's weights with routers that give every expert the same score.
func undecided(t *testing.T, a *arch.Model, src tensor.Source) tensor.Source {
	t.Helper()
	var list []tensortest.Tensor
	for _, x := range a.Tensors() {
		values := tensortest.Floats(t, src, x.Name)
		if x.Role == arch.Router {
			clear(values)
		}
		list = append(list, tensortest.Float32(x.Name, x.Dims, values))
	}
	return tensortest.NewSource(t, nil, list...)
}
