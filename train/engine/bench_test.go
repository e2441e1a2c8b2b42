package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/optim"
)

// nf4Tensor returns a weight in NF4 with double quantization, of random codes.
func nf4Tensor(rng *rand.ChaCha8, t arch.Tensor) tensortest.Tensor {
	elems := tensor.Shape(t.Dims).Elems()
	absmax := make([]float32, elems/64)
	for i := range absmax {
		absmax[i] = 0.04 + 0.02*float32(i%7)/7
	}
	h := nf4.Header{BlockSize: 64, Double: true, Source: tensor.BF16}
	blob := make([]byte, h.Sections(elems).Size())
	_, _ = rng.Read(blob)
	h = h.Assemble(blob, elems, absmax, nf4.Double(absmax, nf4.Mean(absmax)))
	return tensortest.Tensor{Info: h.Info(t.Name, tensor.NF4, t.Dims), Data: blob}
}

// nf4Model returns the weights of a model whose linear layers of blocks are NF4.
func nf4Model(b *testing.B, a *arch.Model) tensor.Source {
	rng := rand.NewChaCha8([32]byte{1})
	var list []tensortest.Tensor
	for i, t := range a.Tensors() {
		if t.Linear && t.Layer >= 0 {
			list = append(list, nf4Tensor(rng, t))
		} else {
			list = append(list, tensortest.Normal(t.Name, t.Dims, 0.02, uint64(i)))
		}
	}
	return tensortest.NewSource(b, nil, list...)
}

// multiplyAdds returns how many floating-point operations all processors do in a second.
func multiplyAdds() float64 {
	const n = 1 << 24
	var sum atomic.Int64
	start := time.Now()
	workers := runtime.GOMAXPROCS(0)
	kernel.Parallel(workers, 1<<30, func(int) { sum.Add(int64(kernel.MultiplyAdd(n))) })
	return float64(sum.Load()) / time.Since(start).Seconds()
}

// BenchmarkStep takes 512 tokens through blocks of the shape of LLaMA 7B and back, with
// adapters of rank 16 on all linear layers. The rate counts what is useful: 4 operations
// for each parameter and token.
func BenchmarkStep(b *testing.B) {
	const tokens, blocks = 512, 2
	a, err := arch.New(arch.ByName("llama"), &arch.Config{
		HiddenSize: 4096, IntermediateSize: 11008, NumHiddenLayers: blocks, NumAttentionHeads: 32, NumKeyValueHeads: 32, HeadDim: 128,
		VocabSize: 64, MaxPositionEmbeddings: 2048, NormEps: 1e-5, HiddenAct: "silu", Rope: arch.Rope{Theta: 10000, Type: "default"},
	})
	require.NoError(b, err)
	src := nf4Model(b, a)
	for _, dropout := range []float32{0, 0.05} {
		train := model.Trainable{Adapters: map[string]*model.Adapter{}}
		var params []*optim.Param
		work := 0.0
		for i, t := range a.Tensors() {
			if t.Linear && t.Layer >= 0 {
				ad := model.NewAdapter(t, 16, 2, dropout, uint64(i))
				train.Adapters[t.Module()] = ad
				params = append(params, ad.A, ad.B)
				work += 4 * tokens * float64(tensor.Shape(t.Dims).Elems())
			}
		}
		for _, p := range params {
			require.NoError(b, p.Fill())
		}
		for _, c := range []Choices{{}, {Kept: blocks}, {Spilled: blocks, PagedBounds: true}} {
			b.Run(fmt.Sprintf("dropout=%v/kept=%d/spilled=%d", dropout, c.Kept, c.Spilled), func(b *testing.B) {
				c.Slots, c.Scratch = blocks, b.TempDir()
				e, err := New(src, tensor.NewCodecs(append(floats.Codecs(), nf4.Codecs()...)...), a, train, Options{Choices: c, Positions: tokens, Batches: 1, Tokens: tokens})
				require.NoError(b, err)
				defer e.Close()
				batch := &model.Batch{}
				for i := range tokens + 1 {
					batch.Tokens = append(batch.Tokens, int32(i*7%64))
				}
				list := batch.Tokens
				batch = &model.Batch{}
				batch.Add(list, tokens)
				step := func() {
					_, err := e.Grad(context.Background(), []*model.Batch{batch}, func(int) uint64 { return 1 }, 1)
					require.NoError(b, err)
				}
				step()
				peak := 0.0
				for b.Loop() {
					step()
					b.StopTimer()
					peak = max(peak, multiplyAdds())
					b.StartTimer()
				}
				rate := work * float64(b.N) / b.Elapsed().Seconds()
				b.ReportMetric(rate/1e9, "GFLOP/s")
				b.ReportMetric(100*rate/peak, "%-of-peak")
				b.ReportAllocs()
				b.ReportMetric(float64(e.Stats().Scratch.Waited.Milliseconds())/float64(b.N+1), "ms-waited")
			})
		}
	}
}
