package merge

import (
	"bytes"
	"fmt"
	"io"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// scan reads a tensor of the adapter through. An element that is not finite is
// an error; zero is that there is none that is not 0.
func scan(adapter tensor.Source, codecs tensor.Codecs, name string) (zero bool, err error) {
	info, rows, err := codecs.OpenFrom(adapter, name)
	if err != nil {
		return false, err
	}
	zero = true
	n, cols := info.Shape.Rows(), info.Shape.Cols()
	panel := min(n, max(1, (1<<18)/max(1, cols)))
	buf := make([]float32, panel*cols)
	for row := int64(0); row < n; row += panel {
		w := buf[:min(panel, n-row)*cols]
		if err := rows.ReadRows(w, row); err != nil {
			return false, fmt.Errorf("adapter tensor %q: %w", name, err)
		}
		squares := kernel.SumSquares(w)
		if err := finite(info, w, row, squares, "the adapter"); err != nil {
			return false, fmt.Errorf("adapter tensor %q: %w", name, err)
		}
		zero = zero && squares == 0
	}
	return zero, nil
}

// same reports whether two tensors are stored as the same bytes.
func same(src tensor.Source, a, b string) (bool, error) {
	x, err := src.Info(a)
	if err != nil {
		return false, err
	}
	y, err := src.Info(b)
	if err != nil || x.DType != y.DType || !x.Shape.Equal(y.Shape) {
		return false, err
	}
	ra, err := src.Raw(a)
	if err != nil {
		return false, err
	}
	rb, err := src.Raw(b)
	if err != nil {
		return false, err
	}
	var p, q [64 << 10]byte
	for {
		n, err := io.ReadFull(ra, p[:])
		m, berr := io.ReadFull(rb, q[:])
		switch {
		case !bytes.Equal(p[:n], q[:m]):
			return false, nil
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return true, nil
		case err != nil:
			return false, err
		case berr != nil:
			return false, berr
		}
	}
}
