package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/seed18967229/nibble/internal/distortion"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// each calls f for all numbers below n on several workers, lowest first. The first
// error ends it all.
func each(ctx context.Context, workers, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	next := 0
	take := func() int {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := take(); i < n && ctx.Err() == nil; i = take() {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// reading is a tensor that is read panel by panel, beside others of its shape.
type reading struct {
	rows  tensor.Rows
	panel []float32
}

// together reads tensors of one shape in lockstep and calls f with the panels of all.
func together(ctx context.Context, shape tensor.Shape, list []tensor.Rows, f func(panels [][]float32) error) error {
	cols, total := shape.Cols(), shape.Rows()
	if cols == 0 {
		return nil
	}
	batch := min(pipeline.PanelRows(cols), total)
	readings := make([]reading, len(list))
	for i, rows := range list {
		readings[i] = reading{rows, make([]float32, batch*cols)}
	}
	panels := make([][]float32, len(list))
	for row := int64(0); row < total; row += batch {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n := min(batch, total-row) * cols
		for i, r := range readings {
			panels[i] = r.panel[:n]
			if err := r.rows.ReadRows(panels[i], row); err != nil {
				return err
			}
		}
		if err := f(panels); err != nil {
			return err
		}
	}
	return nil
}

// versions are the forms of a model that are compared: the reference first, then what
// became of it.
type versions []form

// form is one of them.
type form struct {
	path string
	src  tensor.Source
}

// losses are the figures of a tensor: element [i] is of version i+1 against the
// reference; last is of the last version against the one before it, where there are
// three.
type losses struct {
	against []distortion.Figures
	last    *distortion.Figures
}

// errShapes says that two versions of a tensor cannot be compared.
var errShapes = errors.New("the shapes differ")

// measure compares the versions of one tensor.
func (v versions) measure(ctx context.Context, name string) (*losses, error) {
	var rows []tensor.Rows
	var infos []tensor.Info
	for _, s := range v {
		info, r, err := codecs.OpenFrom(s.src, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.path, err)
		}
		if len(infos) > 0 && !info.Shape.Equal(infos[0].Shape) {
			return nil, fmt.Errorf("%s: tensor %q: %w: %v, and in %s %v", s.path, name, errShapes, info.Shape, v[0].path, infos[0].Shape)
		}
		rows, infos = append(rows, r), append(infos, info)
	}
	var meters []*distortion.Meter
	for i := 1; i < len(v); i++ {
		meters = append(meters, distortion.NewMeter(meterBlock(v[i].src, infos[i])))
	}
	var last *distortion.Meter
	if n := len(v) - 1; n > 1 {
		last = distortion.NewMeter(meterBlock(v[n].src, infos[n]))
	}
	err := together(ctx, infos[0].Shape, rows, func(p [][]float32) error {
		for i, m := range meters {
			m.Add(p[0], p[i+1])
		}
		if last != nil {
			last.Add(p[len(p)-2], p[len(p)-1])
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	out := &losses{}
	for _, m := range meters {
		out.against = append(out.against, m.Figures())
	}
	if last != nil {
		f := last.Figures()
		out.last = &f
	}
	return out, nil
}

// meterBlock returns how many values of a tensor share a scale.
func meterBlock(src tensor.Source, info tensor.Info) int {
	if n, _ := info.DType.Block(); n > 1 {
		return int(n)
	}
	switch info.DType {
	case tensor.NF4, tensor.FP4:
		if h, err := nf4.Describe(src, info.Name); err == nil {
			return int(h.BlockSize)
		}
	case tensor.INT8:
		return int(min(info.Shape.Cols(), 1<<16))
	}
	return distortion.DefaultBlock
}
