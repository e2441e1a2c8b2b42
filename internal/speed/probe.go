package speed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/kernel"
)

// A Probe is how fast this machine does what a training step is made of, measured in
// about a second, for a prediction.
type Probe struct {
	// Product is the floating-point operations a second of products with a weight as
	// it is stored, on all processors; MultiplyAdd that of multiply-adds that wait for
	// nothing.
	Product, MultiplyAdd float64

	// Read is the bytes a second that the model's files give, Write those that the
	// directory for scratch files takes. 0 was not measured.
	Read, Write float64

	// Direct says that reading went past the page cache. Otherwise Read may be how
	// fast memory is.
	Direct bool
}

// probeTime is how long one probe goes on; what it repeats, it does not break off.
const probeTime = 200 * time.Millisecond

// Work is what one step does.
type Work struct {
	// Operations are the floating-point operations of all products.
	Operations float64

	// Read and Written are bytes of files.
	Read, Written int64
}

// Seconds predicts how long a step takes: its products or its files, whichever takes
// longer, as one goes on behind the other. What was not measured counts as nothing.
func (p Probe) Seconds(w Work) float64 {
	over := func(amount, rate float64) float64 {
		if rate <= 0 {
			return 0
		}
		return amount / rate
	}
	return max(over(w.Operations, p.Product), over(float64(w.Read), p.Read)+over(float64(w.Written), p.Write))
}

// Or returns the probe with what was not measured taken from another.
func (p Probe) Or(q Probe) Probe {
	for _, v := range []struct {
		to   *float64
		from float64
	}{{&p.Product, q.Product}, {&p.MultiplyAdd, q.MultiplyAdd}, {&p.Read, q.Read}, {&p.Write, q.Write}} {
		if *v.to <= 0 {
			*v.to = v.from
		}
	}
	return p
}

// Probed measures everything: products of so many tokens with w, a weight of the model;
// reading of the model's files; writing in scratch, unless it is "". It returns the
// first error, with what was measured until then.
func Probed(ctx context.Context, w kernel.Matrix, tokens int, files []string, scratch string) (Probe, error) {
	var p Probe
	var err error
	if p.Product, err = ProbeProduct(ctx, w, tokens); err != nil {
		return p, err
	}
	if p.MultiplyAdd, err = ProbeMultiplyAdd(ctx); err != nil {
		return p, err
	}
	if p.Read, p.Direct, err = ProbeRead(ctx, files); err != nil {
		return p, err
	}
	if scratch != "" {
		p.Write, err = ProbeWrite(ctx, scratch)
	}
	return p, err
}

// ProbeProduct returns how many floating-point operations a second y = x Wᵀ and
// dx = dy W make together, for so many tokens: the way forth and the way back of a
// linear layer. It takes memory for two of its inputs and two of its outputs.
func ProbeProduct(ctx context.Context, w kernel.Matrix, tokens int) (float64, error) {
	rows, cols := w.Dims()
	x, dx := NewBuffer(4*int64(tokens)*int64(cols), 1).Floats, make([]float32, tokens*cols)
	dy, y := NewBuffer(4*int64(tokens)*int64(rows), 2).Floats, make([]float32, tokens*rows)
	once := 4 * float64(tokens) * float64(rows) * float64(cols)
	return repeated(ctx, once, func() error {
		return errors.Join(kernel.MulT(y, x, tokens, w, false), kernel.Mul(dx, dy, tokens, w, false))
	})
}

// ProbeMultiplyAdd returns how many floating-point operations a second multiply-adds
// that wait for nothing make, on all processors.
func ProbeMultiplyAdd(ctx context.Context) (float64, error) {
	variant, err := kernel.Variant()
	if err != nil {
		return 0, err
	}
	c := MultiplyAdds(variant, runtime.GOMAXPROCS(0))
	return repeated(ctx, c.Work, c.Run)
}

// repeated returns how much work a second f does, of which one call does that much. The
// first call counts only if it takes all the time there is.
func repeated(ctx context.Context, work float64, f func() error) (float64, error) {
	took, err := timed(f, 1)
	if err != nil || took >= probeTime {
		return work / took.Seconds(), err
	}
	start, n := time.Now(), 0
	for n == 0 || time.Since(start) < probeTime {
		if err := errors.Join(ctx.Err(), f()); err != nil {
			return 0, err
		}
		n++
	}
	return work * float64(n) / time.Since(start).Seconds(), nil
}

// ProbeRead returns how many bytes a second the largest of the files gives, read from
// its middle on past the page cache, where the file system lets that be; if not, direct
// is false and the system was asked to forget the file first.
func ProbeRead(ctx context.Context, files []string) (rate float64, direct bool, err error) {
	path, size := "", int64(0)
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return 0, false, err
		}
		if path == "" || info.Size() > size {
			path, size = f, info.Size()
		}
	}
	if size == 0 {
		return 0, false, fmt.Errorf("there is no file to measure reading with")
	}
	f, direct, err := openDirect(path)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	if !direct {
		fsx.Forget(f, 0, 0)
	}
	from := int64(0)
	if size > 64*diskChunk {
		from = size / 2 &^ (diskAlign - 1)
	}
	var n atomic.Int64
	start := time.Now()
	err = read(ctx, f, from, size, start.Add(probeTime), func(k int64) { n.Add(k) })
	return float64(n.Load()) / time.Since(start).Seconds(), direct, err
}

// ProbeWrite returns how many bytes a second a directory takes, with fsync. Nothing is
// left in it.
func ProbeWrite(ctx context.Context, dir string) (rate float64, err error) {
	f, err := os.CreateTemp(dir, ".nibble-probe-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	buf := aligned(diskChunk)
	fill(buf, rand.NewPCG(1, 1), ^uint64(0), 0)
	n := int64(0)
	start := time.Now()
	// fsync after every few chunks, so that the last one does not go on for long.
	for n == 0 || time.Since(start) < probeTime {
		for range 4 {
			if _, err := f.Write(buf); err != nil {
				return 0, err
			}
			n += diskChunk
		}
		if err := errors.Join(ctx.Err(), f.Sync()); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}
