package model

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
	"github.com/seed18967229/nibble/train/optim"
	"github.com/seed18967229/nibble/train/stream"
)

var codecs = tensor.NewCodecs(floats.Codecs()...)

type sequence struct {
	tokens []int32
	from   int
}

// setup is a tiny model, what is trained of it, and two micro-batches.
type setup struct {
	arch    *arch.Model
	src     tensor.Source
	train   Trainable
	micro   [][]sequence
	dropout bool
	logits  int // bounds how many exist at a time

	// keep says of a block that what the way back needs of its inside is kept; nil
	// keeps nothing.
	keep func(layer int) bool
	// see, if it is not nil, sees the scratch memory after each pass of a block, which
	// begins with NaN in all of it.
	see func(m *Model, layer, tokens int, back, kept bool)
}

func (s *setup) params() []*optim.Param {
	var out []*optim.Param
	for _, x := range s.arch.Tensors() {
		if p := s.train.Params[x.Name]; p != nil {
			out = append(out, p)
		}
		if a := s.train.Adapters[x.Module()]; a != nil && x.Part == "weight" {
			out = append(out, a.Params()...)
		}
	}
	return out
}

// pass runs all micro-batches through all blocks and back, as a training step
// does, and returns the loss sums.
func (s *setup) pass(t *testing.T, slots int) []float64 {
	t.Helper()
	st, err := stream.New(s.src, codecs, s.arch, stream.Options{Slots: slots, Skip: func(name string) bool { return s.train.Params[name] != nil }})
	require.NoError(t, err)
	defer st.Close()
	m := New(s.arch, s.train, 64)
	if s.logits > 0 {
		m.logitFloats = s.logits
	}
	ctx := context.Background()

	var batches []*Batch
	labels := 0
	for _, list := range s.micro {
		b := &Batch{}
		for _, q := range list {
			b.Add(q.tokens, q.from)
		}
		labels += b.NumLabels()
		batches = append(batches, b)
	}
	key := func(k int) *uint64 {
		if !s.dropout {
			return nil
		}
		u := uint64(k) + 17
		return &u
	}
	xs, bounds := make([][]float32, len(batches)), make([][][]float32, s.arch.NumHiddenLayers)
	for k, b := range batches {
		xs[k] = make([]float32, len(b.Tokens)*m.Hidden())
		require.NoError(t, m.Embed(xs[k], b.Tokens, b.Pos, st))
	}
	kept := make([][][]float32, len(bounds))
	before := func() {
		if s.see != nil {
			m.scr.reset()
			m.scr.peak = 0
			fillNaN(m.scr.buf)
		}
	}
	after := func(layer, tokens int, back, kept bool) {
		if s.see != nil {
			s.see(m, layer, tokens, back, kept)
		}
	}
	for l := range bounds {
		lease, err := st.Lease(ctx, l, l+1)
		require.NoError(t, err)
		block, err := m.Block(l, lease)
		require.NoError(t, err)
		for k, b := range batches {
			bounds[l] = append(bounds[l], append([]float32(nil), xs[k]...))
			kept[l] = append(kept[l], nil)
			if s.keep != nil && s.keep(l) {
				kept[l][k] = make([]float32, m.KeptFloats(l, len(b.Tokens)))
				fillNaN(kept[l][k])
			}
			before()
			require.NoError(t, block.Forward(xs[k], b, key(k), kept[l][k]))
			after(l, len(b.Tokens), false, kept[l][k] != nil)
		}
		lease.Release()
	}
	sums, err := m.Loss(xs, batches, st, true, 1/float32(labels))
	require.NoError(t, err)
	for l := len(bounds) - 1; l >= 0; l-- {
		lease, err := st.Lease(ctx, l, l-1)
		require.NoError(t, err)
		block, err := m.Block(l, lease)
		require.NoError(t, err)
		for k, b := range batches {
			before()
			require.NoError(t, block.Backward(xs[k], bounds[l][k], b, key(k), kept[l][k]))
			after(l, len(b.Tokens), true, kept[l][k] != nil)
		}
		lease.Release()
	}
	for k, b := range batches {
		m.EmbedGrad(xs[k], b.Tokens, b.Pos)
	}
	return sums
}

func fillNaN(x []float32) {
	for i := range x {
		x[i] = float32(math.NaN())
	}
}

// final returns the micro-batches and their last hidden states.
func (s *setup) final(t *testing.T, m *Model, st *stream.Stream) (xs [][]float32, batches []*Batch) {
	t.Helper()
	for _, list := range s.micro {
		b := &Batch{}
		for _, q := range list {
			b.Add(q.tokens, q.from)
		}
		x := make([]float32, len(b.Tokens)*m.Hidden())
		require.NoError(t, m.Embed(x, b.Tokens, b.Pos, st))
		for l := range int(s.arch.NumHiddenLayers) {
			lease, err := st.Lease(context.Background(), l)
			require.NoError(t, err)
			block, err := m.Block(l, lease)
			require.NoError(t, err)
			require.NoError(t, block.Forward(x, b, nil, nil))
			lease.Release()
		}
		xs, batches = append(xs, x), append(batches, b)
	}
	return xs, batches
}

// newSetup makes a model with random micro-batches; ragged, one without a
// label, one of a single token.
func newSetup(t *testing.T, change func(c *arch.Config)) *setup {
	return setupOf(t, tensortest.TinyLlama(t, change))
}

func setupOf(t *testing.T, a *arch.Model) *setup {
	rng := rand.New(rand.NewPCG(5, 5))
	random := func(n, from int) sequence {
		q := sequence{from: from}
		for range n {
			q.tokens = append(q.tokens, int32(rng.IntN(int(a.VocabSize))))
		}
		return q
	}
	return &setup{
		arch: a, src: tensortest.NewModel(t, a, 3),
		train: Trainable{Params: map[string]*optim.Param{}, Adapters: map[string]*Adapter{}},
		micro: [][]sequence{{random(7, 0), random(4, 3)}, {random(9, 2), random(1, 0), random(5, 5)}},
	}
}

// adapt adds adapters with random A and B to the named linear layers of every
// block.
func (s *setup) adapt(t *testing.T, rank int, scale float32, names ...string) {
	rng := rand.New(rand.NewPCG(6, 6))
	for _, x := range s.arch.Tensors() {
		for _, n := range names {
			if x.Linear && len(x.Module()) >= len(n) && x.Module()[len(x.Module())-len(n):] == n {
				ad := filled(t, NewAdapter(x, rank, scale, 0, 1))
				for i := range ad.B.Data {
					ad.B.Data[i] = float32(rng.NormFloat64() * 0.3)
				}
				s.train.Adapters[x.Module()] = ad
			}
		}
	}
}

// full trains every tensor.
func (s *setup) full(t *testing.T) {
	for _, x := range s.arch.Tensors() {
		p := &optim.Param{Name: x.Name, Shape: x.Dims, Layer: x.Layer, Init: optim.Copy(tensortest.Floats(t, s.src, x.Name)), Decay: len(x.Dims) > 1}
		require.NoError(t, p.Fill())
		s.train.Params[x.Name] = p
	}
}

// reference returns the model in float64.
func (s *setup) reference(t *testing.T) *reference {
	r := &reference{a: s.arch, w: map[string][]float64{}, lora: map[string]refLoRA{}}
	for info := range s.src.All() {
		r.w[info.Name] = wide(tensortest.Floats(t, s.src, info.Name))
	}
	for _, p := range s.params() {
		r.w[p.Name] = wide(p.Data)
	}
	for module, a := range s.train.Adapters {
		l := refLoRA{a: a.A.Name, b: a.B.Name, scale: float64(a.Scale)}
		if a.Magnitude != nil {
			l.magnitude = a.Magnitude.Name
		}
		r.lora[module] = l
	}
	r.measure()
	return r
}

func wide(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

func TestGradients(t *testing.T) {
	all := []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
	for name, c := range map[string]struct {
		config func(c *arch.Config)
		setup  func(t *testing.T, s *setup)
	}{
		"lora": {nil, func(t *testing.T, s *setup) { s.adapt(t, 3, 1.7, all...) }},
		"lora rank 1 on two": {func(c *arch.Config) { c.NumKeyValueHeads = 6; c.TieWordEmbeddings = true },
			func(t *testing.T, s *setup) { s.adapt(t, 1, 0.5, "q_proj", "down_proj") }},
		"logits in chunks": {func(c *arch.Config) { c.NumHiddenLayers = 1 }, func(t *testing.T, s *setup) { s.full(t); s.logits = 100 }},
		"full":             {func(c *arch.Config) { c.AttentionBias, c.MLPBias, c.NumHiddenLayers = true, true, 2 }, func(t *testing.T, s *setup) { s.full(t) }},
		"full tied": {func(c *arch.Config) { c.TieWordEmbeddings, c.NumHiddenLayers = true, 1 },
			func(t *testing.T, s *setup) { s.full(t) }},
		"full and lora": {func(c *arch.Config) {
			c.NumHiddenLayers, c.HiddenSize, c.NumAttentionHeads, c.NumKeyValueHeads = 1, 5, 1, 1
		},
			func(t *testing.T, s *setup) { s.full(t); s.adapt(t, 2, 2, all...) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t, c.config)
			c.setup(t, s)
			s.checkGradients(t, 12)
		})
	}
}

// TestGradientsOfEveryFamily trains everything there is of each, and adapters on
// top.
func TestGradientsOfEveryFamily(t *testing.T) {
	for _, f := range arch.Families() {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			a := tensortest.TinyModel(t, f.Name, func(c *arch.Config) { c.NumHiddenLayers, c.WindowPattern = 2, 2 })
			s := setupOf(t, a)
			s.micro = [][]sequence{{s.micro[0][0], s.micro[0][1]}}
			s.full(t)
			s.adapt(t, 2, 0.7, a.LinearModules()...)
			s.checkGradients(t, 1)
		})
	}
}

// labels returns the number of labels of all micro-batches.
func (s *setup) labels() (n int) {
	for _, list := range s.micro {
		for _, q := range list {
			n += max(0, len(q.tokens)-max(1, q.from))
		}
	}
	return n
}

// losses returns the reference's sum for each micro-batch.
func (s *setup) losses(r *reference) (perBatch []float64, sum float64) {
	for _, list := range s.micro {
		var part float64
		for _, q := range list {
			part += r.loss(q.tokens, q.from)
		}
		perBatch = append(perBatch, part)
		sum += part
	}
	return perBatch, sum
}

// checkGradients compares losses and some elements of each gradient with the
// reference.
func (s *setup) checkGradients(t *testing.T, elements int) {
	t.Helper()
	r := s.reference(t)
	want, _ := s.losses(r)
	got := s.pass(t, 2)
	for k := range want {
		require.InEpsilon(t, want[k], got[k], 1e-5, "loss of micro-batch %d", k)
	}
	value := func() float64 {
		_, sum := s.losses(r)
		return sum / float64(s.labels())
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, p := range s.params() {
		// The largest gradient of the tensor sets the scale of the float32
		// error.
		var top float64
		for _, g := range p.Grad {
			top = max(top, math.Abs(float64(g)))
		}
		require.Greater(t, top, 0.0, "%s has no gradient", p.Name)
		for range min(len(p.Data), elements) {
			i := rng.IntN(len(p.Data))
			at := r.w[p.Name][i]
			const h = 1e-5
			r.w[p.Name][i] = at + h
			up := value()
			r.w[p.Name][i] = at - h
			down := value()
			r.w[p.Name][i] = at
			require.InDelta(t, (up-down)/(2*h), p.Grad[i], 2e-5*top+1e-9, "%s element %d", p.Name, i)
		}
	}
}

// grads returns a copy of every gradient after one pass, and the losses.
func (s *setup) grads(t *testing.T, slots int) ([][]float32, []float64) {
	optim.ZeroGrad(s.params())
	loss := s.pass(t, slots)
	var out [][]float32
	for _, p := range s.params() {
		out = append(out, append([]float32(nil), p.Grad...))
	}
	return out, loss
}

func TestBitsDoNotDependOnHow(t *testing.T) {
	for _, dropout := range []bool{false, true} {
		t.Run(fmt.Sprint("dropout ", dropout), func(t *testing.T) {
			s := newSetup(t, nil)
			s.adapt(t, 3, 1.7, "proj")
			if dropout {
				s.dropout = true
				for _, a := range s.train.Adapters {
					a.Dropout = 0.4
				}
			}
			old := runtime.GOMAXPROCS(1)
			defer runtime.GOMAXPROCS(old)
			want, loss := s.grads(t, 2)
			for _, procs := range []int{1, 2, 7} {
				for _, slots := range []int{2, 3} { // streamed, resident
					runtime.GOMAXPROCS(procs)
					got, gotLoss := s.grads(t, slots)
					require.Equal(t, loss, gotLoss, "%d processors, %d slots", procs, slots)
					require.Equal(t, want, got, "%d processors, %d slots", procs, slots)
				}
			}
		})
	}
}

// layer is the weight of a linear layer of block number l.
func layer(l, in, out int) arch.Tensor {
	return arch.Tensor{Name: fmt.Sprintf("model.layers.%d.mlp.up_proj.weight", l), Template: &arch.Template{Part: "weight", Linear: true}, Layer: l, Dims: []int64{int64(out), int64(in)}}
}

func filled(t *testing.T, a *Adapter) *Adapter {
	require.NoError(t, a.Fill())
	return a
}

func TestDropout(t *testing.T) {
	a := NewAdapter(layer(0, 5, 5), 2, 1, 0.25, 1)
	x, y := make([]float32, 100000), make([]float32, 100000)
	for i := range x {
		x[i] = 3
	}
	d := dropout{on: true, key: 9}
	d.mask(y, x, a)
	zeros := 0
	for _, v := range y {
		if v == 0 {
			zeros++
		} else {
			require.Equal(t, float32(4), v)
		}
	}
	require.InDelta(t, 25000, zeros, 500)
	again := make([]float32, len(x))
	d.mask(again, x, a)
	require.Equal(t, y, again)
	d.key++
	d.mask(again, x, a)
	require.NotEqual(t, y, again)

	// With dropout the gradient is that of the masked model: finite
	// differences of the model's own loss, in one element of A and B each.
	s := newSetup(t, func(c *arch.Config) { c.NumHiddenLayers = 1 })
	s.adapt(t, 2, 1, "proj")
	s.dropout = true
	for _, a := range s.train.Adapters {
		a.Dropout = 0.5
	}
	labels := 0
	for _, list := range s.micro {
		for _, q := range list {
			labels += max(0, len(q.tokens)-max(1, q.from))
		}
	}
	loss := func() (sum float64) {
		for _, v := range s.pass(t, 2) {
			sum += v
		}
		return sum / float64(labels)
	}
	grads, _ := s.grads(t, 2)
	for i, p := range s.params() {
		best := 0
		for j, g := range grads[i] {
			if math.Abs(float64(g)) > math.Abs(float64(grads[i][best])) {
				best = j
			}
		}
		at := p.Data[best]
		const h = 1e-2
		p.Data[best] = at + h
		up := loss()
		p.Data[best] = at - h
		down := loss()
		p.Data[best] = at
		require.InEpsilon(t, (up-down)/(2*h), grads[i][best], 2e-2, "%s", p.Name)
	}
}

func TestAdapterInit(t *testing.T) {
	of := func(block int, seed uint64) *Adapter {
		return filled(t, NewAdapter(layer(block, 100, 40), 8, 2, 0, seed))
	}
	a := of(0, 7)
	require.Equal(t, "model.layers.0.mlp.up_proj.lora_A.weight", a.A.Name)
	require.Equal(t, tensor.Shape{8, 100}, a.A.Shape)
	require.Equal(t, tensor.Shape{40, 8}, a.B.Shape)
	var sum, square float64
	for _, v := range a.A.Data {
		require.LessOrEqual(t, math.Abs(float64(v)), 0.1)
		sum += float64(v)
		square += float64(v) * float64(v)
	}
	require.InDelta(t, 0, sum/800, 0.01)
	require.InDelta(t, 0.01/3, square/800, 5e-4)
	for _, v := range a.B.Data {
		require.Zero(t, v)
	}
	require.Equal(t, a.A.Data, of(0, 7).A.Data)
	require.NotEqual(t, a.A.Data, of(0, 8).A.Data)
	require.NotEqual(t, a.A.Data, of(1, 7).A.Data)
}

// TestGenerateSeesWhatTrainingSees compares the logits computed token by token,
// with a cache, with those of the float64 reference.
func TestGenerateSeesWhatTrainingSees(t *testing.T) {
	for _, f := range arch.Families() {
		t.Run(f.Name, func(t *testing.T) { generateSees(t, setupOf(t, tensortest.TinyModel(t, f.Name, nil))) })
	}
}

func generateSees(t *testing.T, s *setup) {
	s.adapt(t, 2, 1, "v_proj", "up_proj", "c_attn", "qkv_proj")
	tokens := s.micro[1][0].tokens
	want := s.reference(t).logits(tokens)
	for _, first := range []int{1, 4, len(tokens)} {
		s.extend(t, tokens, first, func(at int, logits []float32) {
			for i, v := range want[at] {
				require.InDelta(t, v, logits[i], 2e-5*(1+math.Abs(v)), "token %d, logit %d", at, i)
			}
		})
	}
}

// extend passes tokens through the model with a cache, the first of them at once
// and then one by one, and sees the logits after each.
func (s *setup) extend(t *testing.T, tokens []int32, first int, see func(at int, logits []float32)) {
	st, err := stream.New(s.src, codecs, s.arch, stream.Options{})
	require.NoError(t, err)
	defer st.Close()
	m := New(s.arch, s.train, len(tokens))
	c := m.NewCache()
	c.Reach(len(tokens))
	logits := make([]float32, m.Vocab())
	for at, n := 0, first; at < len(tokens); n = 1 {
		x := make([]float32, n*m.Hidden())
		pos := make([]int32, n)
		for i := range pos {
			pos[i] = int32(at + i)
		}
		require.NoError(t, m.Embed(x, tokens[at:at+n], pos, st))
		for l := range int(s.arch.NumHiddenLayers) {
			lease, err := st.Lease(context.Background(), l)
			require.NoError(t, err)
			b, err := m.Block(l, lease)
			require.NoError(t, err)
			require.NoError(t, b.Extend(x, pos, c))
			lease.Release()
		}
		c.Advance(n)
		require.Equal(t, at+n, c.Len())
		for i := range n {
			require.NoError(t, m.Logits(logits, x[i*m.Hidden():(i+1)*m.Hidden()], st))
			see(at+i, logits)
		}
		at += n
	}
}

func TestTokensOutsideTheVocabulary(t *testing.T) {
	s := newSetup(t, nil)
	st, err := stream.New(s.src, codecs, s.arch, stream.Options{})
	require.NoError(t, err)
	defer st.Close()
	m := New(s.arch, s.train, 64)
	for _, bad := range []int32{-1, 37} {
		require.ErrorIs(t, m.Embed(make([]float32, 18), []int32{bad}, []int32{0}, st), tensor.ErrMalformed)
	}
	b := &Batch{}
	b.Add([]int32{1, 37}, 0)
	_, err = m.Loss([][]float32{make([]float32, 18)}, []*Batch{b}, st, false, 1)
	require.ErrorIs(t, err, tensor.ErrMalformed)
}

func TestNoLabels(t *testing.T) {
	s := newSetup(t, nil)
	s.adapt(t, 2, 1, "q_proj")
	s.micro = [][]sequence{{{[]int32{1, 2, 3}, 3}}}
	require.Equal(t, []float64{0}, s.pass(t, 2))
	for _, p := range s.params() {
		require.Zero(t, optim.GradNorm([]*optim.Param{p}))
	}
}
