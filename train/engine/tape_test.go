package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/scratch"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/optim"
)

// task is a model, what is trained of it, and the micro-batches of a step.
type task struct {
	arch    *arch.Model
	src     tensor.Source
	train   model.Trainable
	params  []*optim.Param
	batches []*model.Batch
}

func newTask(t *testing.T, family string, full bool, dropout float32) *task {
	a := tensortest.TinyModel(t, family, func(c *arch.Config) { c.NumHiddenLayers, c.WindowPattern = 4, 2 })
	x := &task{arch: a, src: tensortest.NewModel(t, a, 3), train: model.Trainable{Params: map[string]*optim.Param{}, Adapters: map[string]*model.Adapter{}}}
	rng := rand.New(rand.NewPCG(8, 8))
	random := func(dst []float32) error {
		for i := range dst {
			dst[i] = float32(0.3 * rng.NormFloat64())
		}
		return nil
	}
	for i, w := range a.Tensors() {
		switch {
		case full:
			p := &optim.Param{Name: w.Name, Shape: w.Dims, Layer: w.Layer, Init: optim.Copy(tensortest.Floats(t, x.src, w.Name))}
			x.train.Params[w.Name] = p
			x.params = append(x.params, p)
		case w.Linear:
			ad := model.NewAdapter(w, 3, 0.8, dropout, uint64(i))
			ad.B.Init = random
			x.train.Adapters[w.Module()] = ad
			x.params = append(x.params, ad.A, ad.B)
		}
	}
	for _, p := range x.params {
		require.NoError(t, p.Fill())
	}
	for _, lens := range [][]int{{7, 4}, {9, 1, 5}, {30}, {2}} {
		b := &model.Batch{}
		for _, n := range lens {
			tokens := make([]int32, n)
			for i := range tokens {
				tokens[i] = int32(rng.IntN(int(a.VocabSize)))
			}
			b.Add(tokens, 0)
		}
		x.batches = append(x.batches, b)
	}
	return x
}

func (x *task) engine(t *testing.T, c Choices) *Engine {
	t.Helper()
	e, err := New(x.src, codecs, x.arch, x.train, Options{Choices: c, Positions: 64, Batches: len(x.batches), Tokens: 29})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

// grads returns the losses and every gradient of a step.
func (x *task) grads(t *testing.T, e *Engine) ([]float64, [][]float32) {
	t.Helper()
	optim.ZeroGrad(x.params)
	sums, err := e.Grad(context.Background(), x.batches, func(k int) uint64 { return uint64(k) + 5 }, 0.1)
	require.NoError(t, err)
	var out [][]float32
	for _, p := range x.params {
		out = append(out, append([]float32(nil), p.Grad...))
	}
	return sums, out
}

// TestChoicesChangeNoBit compares losses and gradients of every family that can be
// trained, whatever is in memory, on disk or computed again.
func TestChoicesChangeNoBit(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, f := range arch.Families() {
		for _, kind := range []struct {
			name    string
			full    bool
			dropout float32
		}{{"lora", false, 0}, {"lora with dropout", false, 0.3}, {"full", true, 0}} {
			x := newTask(t, f.Name, kind.full, kind.dropout)
			if x.arch.NumExperts > 0 {
				continue
			}
			t.Run(f.Name+"/"+kind.name, func(t *testing.T) {
				loss, want := x.grads(t, x.engine(t, Choices{Slots: 4}))
				for i, c := range []Choices{
					{Slots: 2},
					{Slots: 4, Kept: 4},
					{Slots: 3, Kept: 99, PagedBounds: true},
					{Slots: 2, Spilled: 4},
					{Slots: 2, Spilled: 9, PagedBounds: true},
					{Slots: 2, Kept: 1, Spilled: 2, PagedBounds: true},
					{Slots: 3, Kept: 1, Spilled: 1},
				} {
					c.Scratch = t.TempDir()
					e := x.engine(t, c)
					for range 2 { // the second step uses the same files
						runtime.GOMAXPROCS([]int{1, 2, 4}[i%3])
						gotLoss, got := x.grads(t, e)
						require.Equal(t, loss, gotLoss, "%+v", c)
						require.Equal(t, want, got, "%+v", c)
					}
				}
			})
		}
	}
}

// TestScratchTraffic counts what goes to disk and comes back: each record once, but for
// those that are still in memory when the way back begins.
func TestScratchTraffic(t *testing.T) {
	x := newTask(t, "llama", false, 0)
	record := func(floats func(tokens int) int) (n int64) {
		for _, b := range x.batches {
			n += scratch.Pages(4 * int64(floats(len(b.Tokens))))
		}
		return n
	}
	e := x.engine(t, Choices{Slots: 2, Kept: 1, Spilled: 2, Scratch: t.TempDir()})
	x.grads(t, e)
	inner := record(func(n int) int { return model.KeptFloats(x.arch, 2, n) })
	require.Equal(t, 2*inner, e.Stats().Scratch.Written)
	require.LessOrEqual(t, e.Stats().Scratch.Read, 2*inner)
	require.GreaterOrEqual(t, e.Stats().Scratch.Read, inner)

	e = x.engine(t, Choices{Slots: 2, PagedBounds: true, Scratch: t.TempDir()})
	x.grads(t, e)
	bounds := record(func(n int) int { return n * int(x.arch.HiddenSize) })
	require.Equal(t, 4*bounds, e.Stats().Scratch.Written)
	require.Positive(t, e.Stats().BytesRead)

	// One micro-batch: the last two blocks need not be read.
	x.batches = x.batches[2:3]
	e = x.engine(t, Choices{Slots: 2, Spilled: 4, Scratch: t.TempDir()})
	x.grads(t, e)
	require.Equal(t, 2*e.Stats().Scratch.Read, e.Stats().Scratch.Written)
	s := e.Stats().Scratch
	e.Close()
	require.Equal(t, s, e.Stats().Scratch, "the counts outlive the files")
}

// TestNeed compares what a step is said to take with what there is.
func TestNeed(t *testing.T) {
	for _, family := range []string{"llama", "gemma2", "phi3", "gpt2"} {
		x := newTask(t, family, false, 0.2)
		for _, c := range []Choices{{}, {Kept: 1, Spilled: 2}, {Spilled: 4, PagedBounds: true}, {Kept: 4}} {
			c.Slots, c.Scratch = 2, t.TempDir()
			e := x.engine(t, c)
			need := c.Need(x.arch, e.model.Adapted(), len(x.batches), 29)
			floats := func(list [][][]float32) (n int64) {
				for _, l := range list {
					for _, b := range l {
						n += 4 * int64(cap(b))
					}
				}
				return n
			}
			require.Equal(t, need.Hidden, 4*int64(len(e.hidden)))
			require.Equal(t, need.Bounds, floats(e.bounds.memory))
			require.Equal(t, need.Kept, floats(e.inner.memory))
			var ring, disk int64
			for _, tape := range []*tape{e.bounds, e.inner} {
				for _, p := range tape.pages {
					ring += int64(len(p.buf))
				}
				if tape.file != nil {
					disk += tape.file.Size()
				}
			}
			require.Equal(t, need.Ring, ring)
			require.Equal(t, need.Disk, disk)
			require.Positive(t, need.Pass)
			if c.Kept > 0 {
				require.Equal(t, need.Kept, int64(c.Kept*len(x.batches))*KeptBytes(x.arch, 3, 29))
			}
		}
	}
}

// A step that is larger than was said has room made for it.
func TestLargerSteps(t *testing.T) {
	x := newTask(t, "llama", false, 0)
	loss, want := x.grads(t, x.engine(t, Choices{Slots: 2}))
	e, err := New(x.src, codecs, x.arch, x.train, Options{Choices: Choices{Slots: 2, Kept: 1, Spilled: 2, PagedBounds: true, Scratch: t.TempDir()}, Positions: 64})
	require.NoError(t, err)
	defer e.Close()
	whole := x.batches
	for n := 1; n <= len(whole); n++ {
		x.batches = whole[:n]
		gotLoss, got := x.grads(t, e)
		require.InDeltaSlice(t, loss[:n], gotLoss, 1e-4) // the head sums few rows in another order
		if n == len(whole) {
			require.Equal(t, loss, gotLoss)
			require.Equal(t, want, got)
		}
	}
}

func TestScratchDiskTooSmall(t *testing.T) {
	x := newTask(t, "llama", false, 0)
	_, err := New(x.src, codecs, x.arch, x.train, Options{Choices: Choices{Slots: 2, Spilled: 1, Scratch: t.TempDir()}, Positions: 64, Batches: 1 << 30, Tokens: 1 << 10})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Contains(t, hint.Of(err), "another disk")
	_, err = New(x.src, codecs, x.arch, x.train, Options{Choices: Choices{Slots: 2, Spilled: 1, Scratch: "/no/such/dir"}, Positions: 64, Batches: 1, Tokens: 10})
	require.ErrorContains(t, err, "/no/such/dir")
}

// TestScratchDiskFull has the disk fill up in the middle of a step, and then there be
// room again.
func TestScratchDiskFull(t *testing.T) {
	x := newTask(t, "llama", false, 0)
	loss, want := x.grads(t, x.engine(t, Choices{Slots: 2}))
	for name, tape := range map[string]func(e *Engine) *tape{
		"inside": func(e *Engine) *tape { return e.inner },
		"bounds": func(e *Engine) *tape { return e.bounds },
	} {
		t.Run(name, func(t *testing.T) {
			e := x.engine(t, Choices{Slots: 2, Spilled: 3, PagedBounds: true, Scratch: t.TempDir()})
			full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
			require.NoError(t, err)
			broken := tape(e)
			good := broken.file
			broken.file = scratch.New(full, "/scratch", good.Size())
			_, err = e.Grad(context.Background(), x.batches, nil, 1)
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.ErrorContains(t, err, "scratch file in /scratch: writing")
			require.Contains(t, fmt.Sprint(err), "block ")
			broken.file.Close()
			broken.file = good
			gotLoss, got := x.grads(t, e)
			require.Equal(t, loss, gotLoss)
			require.Equal(t, want, got)
		})
	}
}
