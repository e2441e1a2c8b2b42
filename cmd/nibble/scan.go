package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// A span is a part of a tensor: n elements from start on. It is whole rows, or
// lies in one row.
type span struct{ start, n int64 }

// spansOf cuts tensors of one shape into spans of at most a panel. Where blocks
// must not be cut, a row that is longer than a panel is a span of its own.
func spansOf(infos ...tensor.Info) []span {
	shape := infos[0].Shape
	cols, elems := shape.Cols(), shape.Elems()
	if elems == 0 {
		return nil
	}
	step := pipeline.PanelRows(cols) * cols
	for _, info := range infos {
		if info.DType.Opaque() {
			return cut(elems, step)
		}
	}
	panel := pipeline.PanelRows(1) // a multiple of every block
	if step <= panel {
		return cut(elems, step)
	}
	var out []span
	for row := int64(0); row < elems; row += cols {
		for _, s := range cut(cols, panel) {
			out = append(out, span{row + s.start, s.n})
		}
	}
	return out
}

func cut(elems, step int64) []span {
	var out []span
	for at := int64(0); at < elems; at += step {
		out = append(out, span{at, min(step, elems-at)})
	}
	return out
}

// size is how many stored bytes a span has, about so for an opaque encoding.
func (s span) size(info tensor.Info) int64 {
	if block, bytes := info.DType.Block(); block != 0 {
		return s.n / block * bytes
	}
	return int64(float64(info.Size()) * float64(s.n) / float64(info.Shape.Elems()))
}

// A flat reads spans of a tensor.
type flat struct {
	info  tensor.Info
	codec tensor.Codec // nil if nothing decodes the tensor
	raw   *io.SectionReader
	rows  tensor.Rows // of an opaque encoding
}

func openFlat(src tensor.Source, info tensor.Info) (*flat, error) {
	raw, err := src.Raw(info.Name)
	if err != nil {
		return nil, err
	}
	f := &flat{info: info, raw: raw, codec: codecs[info.DType]}
	if info.DType.Opaque() {
		f.rows, err = codecs.Open(info, tensor.ReaderBytes{R: raw})
	}
	return f, err
}

// bytes reads the stored bytes of a span into buf, enlarged if it must be. An
// opaque encoding has none that belong to a span.
func (f *flat) bytes(buf *[]byte, s span) ([]byte, error) {
	block, size := f.info.DType.Block()
	b, err := tensor.ReaderBytes{R: f.raw}.Slice(*buf, s.start/block*size, s.n/block*size)
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", f.info.Name, err)
	}
	*buf = b
	return b, nil
}

// floats decodes a span into buf, enlarged if it must be; stored is what bytes
// returned.
func (f *flat) floats(buf *[]float32, stored []byte, s span) ([]float32, error) {
	if int64(cap(*buf)) < s.n {
		*buf = make([]float32, s.n)
	}
	w := (*buf)[:s.n]
	var err error
	if f.rows != nil {
		err = f.rows.ReadRows(w, s.start/f.info.Shape.Cols())
	} else {
		var rows tensor.Rows
		info := tensor.Info{Name: f.info.Name, DType: f.info.DType, Shape: tensor.Shape{s.n}}
		if rows, err = f.codec.Open(info, tensor.Memory(stored)); err == nil {
			err = rows.ReadRows(w, 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", f.info.Name, err)
	}
	return w, nil
}

// values reads and decodes a span.
func (f *flat) values(sc *scratch, s span) ([]float32, error) {
	if f.rows != nil {
		return f.floats(&sc.floats[0], nil, s)
	}
	b, err := f.bytes(&sc.bytes[0], s)
	if err != nil {
		return nil, err
	}
	return f.floats(&sc.floats[0], b, s)
}

// scratch is the memory of one worker.
type scratch struct {
	bytes  [2][]byte
	floats [2][]float32
}

// scanWorkers is how many workers a budget allows that each need so many panels,
// stored and decoded; at least one.
func (a *app) scanWorkers(panels int64) int {
	n := runtime.GOMAXPROCS(0)
	if a.memory > 0 {
		n = min(n, int(int64(a.memory)/(2*panels*4*pipeline.PanelRows(1))))
	}
	return max(1, n)
}

// scan calls work for every span of n things on several workers, and returns
// what it made of each, in order. open is called once for each thing, before its
// first span, and what it returns is dropped after the last. The first error ends
// it all.
func scan[T, R any](ctx context.Context, workers, n int, spans func(i int) []span, open func(i int) (T, error),
	work func(t T, s span, sc *scratch) (R, error)) ([][]R, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type thing struct {
		spans  []span
		opened func() (T, error)
		left   int // spans that are not done
	}
	var mu sync.Mutex
	out := make([][]R, n)
	var now *thing // the last of i things that spans are taken from, k so far
	i, k := 0, 0
	next := func() (t *thing, ti, tk int) {
		mu.Lock()
		defer mu.Unlock()
		for now == nil || k == len(now.spans) {
			if i == n {
				return nil, 0, 0
			}
			at := i
			list := spans(at)
			now = &thing{spans: list, left: len(list), opened: sync.OnceValues(func() (T, error) { return open(at) })}
			out[at] = make([]R, len(list))
			i, k = i+1, 0
		}
		k++
		return now, i - 1, k - 1
	}
	run := func() {
		var sc scratch
		for ctx.Err() == nil {
			t, ti, tk := next()
			if t == nil {
				return
			}
			opened, err := t.opened()
			if err == nil {
				out[ti][tk], err = work(opened, t.spans[tk], &sc)
			}
			if err != nil {
				cancel(err)
				return
			}
			mu.Lock()
			if t.left--; t.left == 0 {
				t.opened = nil
			}
			mu.Unlock()
		}
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(run)
	}
	wg.Wait()
	return out, context.Cause(ctx)
}
