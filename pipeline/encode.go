package pipeline

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Encoding says how Encode stores a tensor.
type Encoding struct {
	// Importance has the mean square of what each column is multiplied with; of a
	// tensor of several matrices, those of its last two dimensions, one after
	// another. nil says that all matter alike. A type that cannot mind it does not.
	Importance []float32

	// NonFinite is what becomes of weights that are NaN or infinite.
	NonFinite *NonFinite
}

// Encode returns the step that quantizes a tensor: it is stored as out, which has
// as many rows, of the same length, and a dtype that codecs can encode. A weight
// that the type cannot hold, as it is too large for the scale of a block, stops
// the run.
func Encode(codecs tensor.Codecs, in string, out tensor.Info, e Encoding) (Step, error) {
	enc, err := codecs.Encoder(out.DType)
	if err != nil {
		return Step{}, fmt.Errorf("tensor %q: %w", in, err)
	}
	cols, matrix := out.Shape.Cols(), out.Shape.Rows() // rows of a matrix
	if len(out.Shape) > 2 {
		matrix = out.Shape[len(out.Shape)-2]
	}
	weighted, ok := enc.(tensor.WeightedEncoder)
	if !ok || out.Shape.Rows() == 0 {
		e.Importance = nil
	}
	if n := int64(len(e.Importance)); e.Importance != nil && n != out.Shape.Rows()/matrix*cols {
		return Step{}, fmt.Errorf("tensor %q: the importance of %d columns, for %v", in, n, out.Shape)
	}
	batch := min(PanelRows(cols), out.Shape.Rows())
	return Step{
		Action:  strings.ToLower(out.DType.String()),
		In:      []string{in},
		Out:     []tensor.Info{out},
		Scratch: 2*4*batch*cols + batch*out.RowSize(),
		Run: func(ctx context.Context, src tensor.Source, dst []io.WriterAt) error {
			buf := make([]byte, batch*out.RowSize())
			return EachPanel(ctx, codecs, src, in, func(w []float32, row int64) error {
				large := !(kernel.Absmax(w) <= maxHalf)
				if large {
					if err := e.NonFinite.Check(out.Name, w, row*cols); err != nil {
						return err
					}
				}
				n := int64(len(w)) / cols
				b := buf[:n*out.RowSize()]
				if e.Importance == nil {
					enc.Encode(b, w)
				} else {
					// A panel may reach over several matrices.
					for at := int64(0); at < n; {
						m := (row + at) / matrix
						k := min(n-at, (m+1)*matrix-row-at)
						weighted.EncodeWeighted(b[at*out.RowSize():(at+k)*out.RowSize()], w[at*cols:(at+k)*cols], e.Importance[m*cols:(m+1)*cols])
						at += k
					}
				}
				if large {
					if err := holds(enc, out, b, w, row*cols); err != nil {
						return err
					}
				}
				_, err := dst[0].WriteAt(b, row*out.RowSize())
				return err
			})
		},
	}, nil
}

// maxHalf is the largest float16. No block of smaller magnitudes has a scale that
// float16 cannot hold.
const maxHalf = 65504

// holds returns an error unless the encoded rows b of w decode to numbers.
func holds(enc tensor.Encoder, out tensor.Info, b []byte, w []float32, first int64) error {
	info := tensor.Info{Name: out.Name, DType: out.DType, Shape: tensor.Shape{int64(len(w)) / out.Shape.Cols(), out.Shape.Cols()}}
	rows, err := enc.Open(info, tensor.Memory(b))
	if err != nil {
		return err
	}
	got := make([]float32, len(w))
	if err := rows.ReadRows(got, 0); err != nil {
		return err
	}
	for i, v := range got {
		if !finite(v) {
			at, most := i, float32(0) // the largest of the block is at fault
			elems, _ := out.DType.Block()
			block := i / int(elems) * int(elems)
			for j, x := range w[block : block+int(elems)] {
				if a := float32(math.Abs(float64(x))); a > most {
					at, most = block+j, a
				}
			}
			return hint.Add(fmt.Errorf("%w: element %d is %v, too large for the scale of a %v block", tensor.ErrUnsupported, first+int64(at), w[at], out.DType),
				"store this tensor as another type with --tensor-type PATTERN=bf16")
		}
	}
	return nil
}
