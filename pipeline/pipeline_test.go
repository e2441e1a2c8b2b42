package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

var codecs = tensor.NewCodecs(floats.Codecs()...)

// memorySink keeps what is written, and how it ended.
type memorySink struct {
	mu     sync.Mutex
	meta   tensor.Meta
	layout []tensor.Info
	bodies [][]byte
	ended  string
	begin  error
}

func (s *memorySink) Begin(meta tensor.Meta, layout []tensor.Info) error {
	s.meta, s.layout = meta, layout
	for _, i := range layout {
		s.bodies = append(s.bodies, make([]byte, i.Size()))
	}
	return s.begin
}

type body struct {
	s *memorySink
	i int
}

func (b body) WriteAt(p []byte, off int64) (int, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return copy(b.s.bodies[b.i][off:], p), nil
}

func (s *memorySink) Body(i int) (io.WriterAt, error) { return body{s, i}, nil }
func (s *memorySink) Finish() error                   { s.ended += "finish"; return nil }
func (s *memorySink) Abort() error                    { s.ended += "abort"; return nil }

func source(t *testing.T) tensor.Source {
	return tensortest.NewSource(t, nil,
		tensortest.Normal("a", tensor.Shape{700, 500}, 1, 1),
		tensortest.Normal("b", tensor.Shape{3}, 1, 2),
		tensortest.Normal("c", tensor.Shape{2, 400000}, 1, 3),
		tensortest.Float32("empty", tensor.Shape{0, 7}, nil))
}

func info(t *testing.T, src tensor.Source, name string) tensor.Info {
	i, err := src.Info(name)
	require.NoError(t, err)
	return i
}

func castAll(t *testing.T, src tensor.Source) *Plan {
	p := &Plan{Meta: tensor.Meta{{Key: "k", Value: "v"}}, Drop: []Drop{{"b", "not wanted"}}}
	p.Steps = append(p.Steps, Copy(info(t, src, "a"), "x"))
	for _, name := range []string{"a", "c", "empty"} {
		out := info(t, src, name)
		out.DType = tensor.BF16
		s, err := Cast(codecs, name, out)
		require.NoError(t, err)
		p.Steps = append(p.Steps, s)
	}
	return p
}

func TestRun(t *testing.T) {
	src := source(t)
	var first *memorySink
	for _, workers := range []int{1, 2, 8} {
		for _, memory := range []int64{0, 6 << 20} {
			var written atomic.Int64
			dst, p := &memorySink{}, castAll(t, src)
			require.NoError(t, Run(context.Background(), p, src, dst, WithWorkers(workers), WithMemory(memory),
				WithProgress(func(n int64) { written.Add(n) })))
			require.Equal(t, "finish", dst.ended)
			require.Equal(t, p.Meta, dst.meta)
			require.Equal(t, p.Size(), written.Load())
			if first == nil {
				first = dst
				require.Equal(t, tensortest.Bytes(t, src, "a"), dst.bodies[0])
				want := make([]byte, 2*800000)
				enc, _ := codecs.Encoder(tensor.BF16)
				enc.Encode(want, tensortest.Floats(t, src, "c"))
				require.Equal(t, want, dst.bodies[2])
			}
			require.Equal(t, first.bodies, dst.bodies, "%d workers, budget %d", workers, memory)
		}
	}
}

func TestCheck(t *testing.T) {
	src := source(t)
	ok := castAll(t, src)
	require.NoError(t, ok.Check(src, 0))
	for name, c := range map[string]struct {
		change func(p *Plan)
		budget int64
		says   string
		is     error
	}{
		"missing":  {func(p *Plan) { p.Steps[0].In = []string{"zz"} }, 0, `"zz"`, tensor.ErrNotFound},
		"clashing": {func(p *Plan) { p.Steps[0].Out[0].Name = "c" }, 0, `two steps of the plan write it`, nil},
		"unused":   {func(p *Plan) { p.Drop = nil }, 0, `"b"`, tensor.ErrUnsupported},
		"invalid":  {func(p *Plan) { p.Steps[0].Out[0].Shape = tensor.Shape{-3} }, 0, `"x"`, tensor.ErrMalformed},
		"budget":   {func(p *Plan) {}, 1 << 20, "over the budget of 1.00 MiB", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := castAll(t, src)
			c.change(p)
			err := p.Check(src, c.budget)
			require.ErrorContains(t, err, c.says)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			dst := &memorySink{}
			require.Error(t, Run(context.Background(), p, src, dst, WithMemory(c.budget)))
			require.Equal(t, "abort", dst.ended)
			require.Nil(t, dst.layout, "a plan that cannot work must fail before the output exists")
		})
	}
}

func TestFailures(t *testing.T) {
	src := source(t)
	boom := errors.New("boom")
	t.Run("begin", func(t *testing.T) {
		dst := &memorySink{begin: boom}
		require.ErrorIs(t, Run(context.Background(), castAll(t, src), src, dst), boom)
		require.Equal(t, "abort", dst.ended)
	})
	t.Run("step", func(t *testing.T) {
		p := castAll(t, src)
		p.Steps[2].Run = func(context.Context, tensor.Source, []io.WriterAt) error { return fmt.Errorf("row 3: %w", boom) }
		dst := &memorySink{}
		err := Run(context.Background(), p, src, dst)
		require.ErrorIs(t, err, boom)
		require.ErrorContains(t, err, `tensor "c": row 3: boom`)
		require.Equal(t, "abort", dst.ended)
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		p := castAll(t, src)
		p.Steps[1].Run = func(context.Context, tensor.Source, []io.WriterAt) error { cancel(); return nil }
		dst := &memorySink{}
		require.ErrorIs(t, Run(ctx, p, src, dst, WithWorkers(1)), context.Canceled)
		require.Equal(t, "abort", dst.ended)
	})
}

func TestMemoryBudgetIsKept(t *testing.T) {
	src := tensortest.NewSource(t, nil)
	var inUse, most atomic.Int64
	p := &Plan{}
	for i := range 40 {
		scratch := int64(i%7+1) * 10
		p.Steps = append(p.Steps, Step{
			Out:     []tensor.Info{{Name: fmt.Sprint(i), DType: tensor.U8, Shape: tensor.Shape{1}}},
			Scratch: scratch,
			Run: func(context.Context, tensor.Source, []io.WriterAt) error {
				now := inUse.Add(scratch)
				for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
				inUse.Add(-scratch)
				return nil
			},
		})
	}
	require.NoError(t, Run(context.Background(), p, src, &memorySink{}, WithMemory(100), WithWorkers(16)))
	require.LessOrEqual(t, most.Load(), int64(100))
	require.Error(t, Run(context.Background(), p, src, &memorySink{}, WithMemory(60)))

	// A wish is kept as far as it can be: a step of 70 runs alone.
	most.Store(0)
	require.NoError(t, Run(context.Background(), p, src, &memorySink{}, WithRoom(60), WithWorkers(16)))
	require.LessOrEqual(t, most.Load(), int64(70))
	most.Store(0)
	require.NoError(t, Run(context.Background(), p, src, &memorySink{}, WithRoom(60), WithMemory(100), WithWorkers(16)))
	require.LessOrEqual(t, most.Load(), int64(100), "the budget counts")
}

func TestShortSource(t *testing.T) {
	i := tensor.Info{Name: "a", DType: tensor.U8, Shape: tensor.Shape{10}}
	src, err := tensor.NewTable(nil, []tensor.Entry{{Info: i, Open: func() (io.ReaderAt, error) {
		return io.NewSectionReader(zeros{}, 0, 4), nil
	}}})
	require.NoError(t, err)
	dst := &memorySink{}
	err = Run(context.Background(), &Plan{Steps: []Step{Copy(i, "a")}}, src, dst)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, "abort", dst.ended)
}

type zeros struct{}

func (zeros) ReadAt(p []byte, off int64) (int, error) { clear(p); return len(p), nil }
