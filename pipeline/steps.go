package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/tensor"
)

// panel is how many bytes a step moves at a time: enough for the disk to be
// efficient, little enough to stay in the processor's cache.
const panel = 1 << 20

// copyAction is the action of a step that changes nothing.
const copyAction = "copy"

// Copy returns the step that writes the stored bytes of a tensor as they are,
// under another name if as differs.
func Copy(info tensor.Info, as string) Step {
	out := info
	out.Name = as
	return Step{
		Action:  copyAction,
		In:      []string{info.Name},
		Out:     []tensor.Info{out},
		Scratch: min(panel, info.Size()),
		Run: func(ctx context.Context, src tensor.Source, dst []io.WriterAt) error {
			r, err := src.Raw(info.Name)
			if err != nil {
				return err
			}
			if list, ok := tensor.Extents(r, 0, info.Size()); ok {
				return move(dst[0], list)
			}
			return copyTo(dst[0], 0, r, info.Size())
		},
	}
}

// panels are used again: a checkpoint has hundreds of tensors, and garbage of a panel each
// would be more than a run that is held to its memory has room for.
var panels = sync.Pool{New: func() any { return new([]byte) }}

// copyTo reads n bytes of r and writes them at off.
func copyTo(dst io.WriterAt, off int64, r io.Reader, n int64) error {
	size := int(min(panel, max(1, n)))
	buf := panels.Get().(*[]byte)
	defer panels.Put(buf)
	if len(*buf) < size {
		*buf = make([]byte, size)
	}
	// The copy is bounded; hiding the reader's WriteTo keeps the buffer ours.
	got, err := io.CopyBuffer(io.NewOffsetWriter(dst, off), struct{ io.Reader }{io.LimitReader(r, n)}, (*buf)[:size])
	if err == nil && got != n {
		err = fmt.Errorf("%d bytes read where there should be %d: %w", got, n, io.ErrUnexpectedEOF)
	}
	return err
}

// A mover is a body that can take bytes from a file without their passing
// through the program.
type mover interface {
	MoveFrom(off int64, src *os.File, at, n int64) (int64, error)
}

// moveAtMost bounds what is moved at a time, so that progress shows and a run
// that has ended stops.
const moveAtMost = 32 << 20

// move writes stored bytes one after another, through the system where it can
// do that.
func move(dst io.WriterAt, list []tensor.Extent) error {
	m, _ := dst.(mover)
	var at int64
	for _, e := range list {
		for done := int64(0); done < e.Size; {
			err := fsx.ErrCannotMove
			var n int64
			if m != nil {
				n, err = m.MoveFrom(at, e.File, e.Off+done, min(moveAtMost, e.Size-done))
			}
			if errors.Is(err, fsx.ErrCannotMove) {
				n = e.Size - done
				err = copyTo(dst, at, io.NewSectionReader(e.File, e.Off+done, n), n)
			}
			if err != nil {
				return err
			}
			done, at = done+n, at+n
		}
	}
	return nil
}

// Cast returns the step that decodes the input tensor and stores it as out,
// which has the same shape and a dtype that codecs can encode.
func Cast(codecs tensor.Codecs, in string, out tensor.Info) (Step, error) {
	enc, err := codecs.Encoder(out.DType)
	if err != nil {
		return Step{}, fmt.Errorf("tensor %q: %w", in, err)
	}
	cols := out.Shape.Cols()
	batch := min(PanelRows(cols), out.Shape.Rows())
	return Step{
		Action:  "cast",
		In:      []string{in},
		Out:     []tensor.Info{out},
		Scratch: 2*4*batch*cols + batch*out.RowSize(),
		Run: func(ctx context.Context, src tensor.Source, dst []io.WriterAt) error {
			if r, ok := enc.(tensor.Recoder); ok {
				if info, err := src.Info(in); err == nil {
					if f := r.From(info.DType); f != nil {
						return recode(ctx, src, info, out, f, dst[0])
					}
				}
			}
			buf := make([]byte, batch*out.RowSize())
			return EachPanel(ctx, codecs, src, in, func(w []float32, row int64) error {
				b := buf[:int64(len(w))/cols*out.RowSize()]
				enc.Encode(b, w)
				_, err := dst[0].WriteAt(b, row*out.RowSize())
				return err
			})
		},
	}, nil
}

// recode stores the elements of a tensor as those of out, by f.
func recode(ctx context.Context, src tensor.Source, info, out tensor.Info, f func(dst, src []byte), dst io.WriterAt) error {
	r, err := src.Raw(info.Name)
	if err != nil {
		return err
	}
	_, from := info.DType.Block()
	_, to := out.DType.Block()
	n := info.Shape.Elems()
	batch := min(n, panel/max(from, to))
	a, b := make([]byte, batch*from), make([]byte, batch*to)
	for at := int64(0); at < n; at += batch {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		k := min(batch, n-at)
		if got, err := r.ReadAt(a[:k*from], at*from); int64(got) < k*from {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("tensor %q: %w", info.Name, err)
		}
		f(b[:k*to], a[:k*from])
		if _, err := dst.WriteAt(b[:k*to], at*to); err != nil {
			return err
		}
	}
	return nil
}

// PanelRows returns how many rows of that many float32 make a panel; at least
// one.
func PanelRows(cols int64) int64 { return max(1, panel/4/max(1, cols)) }

// EachPanel decodes a tensor panel by panel and calls f with each, whose first
// row is given. The panel is reused between calls.
func EachPanel(ctx context.Context, codecs tensor.Codecs, src tensor.Source, name string, f func(w []float32, row int64) error) error {
	info, rows, err := codecs.OpenFrom(src, name)
	if err != nil {
		return err
	}
	cols, total := info.Shape.Cols(), info.Shape.Rows()
	if cols == 0 {
		return nil
	}
	batch := min(PanelRows(cols), total)
	w := make([]float32, batch*cols)
	for row := int64(0); row < total; row += batch {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		w = w[:min(batch, total-row)*cols]
		if err := rows.ReadRows(w, row); err != nil {
			return err
		}
		if err := f(w, row); err != nil {
			return err
		}
	}
	return nil
}
