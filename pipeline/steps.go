package pipeline

import (
	"context"
	"fmt"
	"io"

	"github.com/seed18967229/nibble/tensor"
)

// panel is how many bytes a step moves at a time: enough for the disk to be
// efficient, little enough to stay in the processor's cache.
const panel = 1 << 20

// Copy returns the step that writes the stored bytes of a tensor as they are,
// under another name if as differs.
func Copy(info tensor.Info, as string) Step {
	out := info
	out.Name = as
	return Step{
		Action:  "copy",
		In:      []string{info.Name},
		Out:     []tensor.Info{out},
		Scratch: min(panel, info.Size()),
		Run: func(ctx context.Context, src tensor.Source, dst []io.WriterAt) error {
			r, err := src.Raw(info.Name)
			if err != nil {
				return err
			}
			// The copy is bounded by the section; hiding the reader's WriteTo
			// keeps the buffer ours.
			n, err := io.CopyBuffer(io.NewOffsetWriter(dst[0], 0), struct{ io.Reader }{r}, make([]byte, min(panel, max(1, info.Size()))))
			if err == nil && n != info.Size() {
				err = fmt.Errorf("%d bytes read where there should be %d: %w", n, info.Size(), io.ErrUnexpectedEOF)
			}
			return err
		},
	}
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
