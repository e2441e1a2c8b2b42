package convert

import (
	"cmp"
	"io"
	"slices"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/tensor"
)

// rowOrder says where each row of a tensor comes from.
type rowOrder func(row int64) int64

// toInterleaved returns, for each row of a tensor with interleaved rotary
// pairs, the row of the half-split one: within a head of d rows, row 2j is row j
// and row 2j+1 is row j + d/2. (LlamaModel.permute in conversion/llama.py.)
func toInterleaved(headDim int64) rowOrder {
	return func(row int64) int64 {
		head, i := row-row%headDim, row%headDim
		return head + i/2 + i%2*(headDim/2)
	}
}

// toHalfSplit is the inverse of toInterleaved.
func toHalfSplit(headDim int64) rowOrder {
	return func(row int64) int64 {
		head, i := row-row%headDim, row%headDim
		half := headDim / 2
		return head + i%half*2 + i/half
	}
}

// between returns the order that takes rows from one rotary layout to another,
// nil if it is the same.
func between(from, to arch.Rotary, headDim int64) rowOrder {
	switch {
	case from == to:
		return nil
	case to == arch.Interleaved:
		return toInterleaved(headDim)
	}
	return toHalfSplit(headDim)
}

// reorder returns the entry of a tensor of src under another name with its rows
// in another order. Stored rows are moved as they are; where rows cannot be
// told apart in storage, as in the bitsandbytes encodings, they are decoded to
// F32. A vector has rows of one element.
func reorder(src tensor.Source, codecs tensor.Codecs, info tensor.Info, as string, order rowOrder) tensor.Entry {
	out := info
	out.Name = as
	rowSize, rows := info.RowSize(), info.Shape.Rows()
	if len(info.Shape) == 1 {
		_, bytes := info.DType.Block()
		rowSize, rows = bytes, info.Shape[0]
	}
	if info.DType.Opaque() {
		out = tensor.Info{Name: as, DType: tensor.F32, Shape: info.Shape}
		return tensor.Entry{Info: out, Open: func() (io.ReaderAt, error) {
			_, in, err := codecs.OpenFrom(src, info.Name)
			if err != nil {
				return nil, err
			}
			enc, err := codecs.Encoder(tensor.F32)
			if err != nil {
				return nil, err
			}
			return tensor.Compute(out, reordered{in, info.Shape.Cols(), order}, nil, enc).Open()
		}}
	}
	return tensor.Entry{Info: out, Open: func() (io.ReaderAt, error) {
		r, err := src.Raw(info.Name)
		if err != nil {
			return nil, err
		}
		read := tensor.ReadRowsAt(rowSize, rows, func(dst []byte, row int64) error {
			return order.read(dst, row, rowSize, func(dst []byte, from int64) error {
				if n, err := r.ReadAt(dst, from*rowSize); n < len(dst) {
					if err == nil || err == io.EOF {
						err = io.ErrUnexpectedEOF
					}
					return err
				}
				return nil
			})
		})
		return storedRows{read, r, rowSize, order}, nil
	}}
}

// storedRows reads stored rows in another order.
type storedRows struct {
	io.ReaderAt
	stored  *io.SectionReader
	rowSize int64
	order   rowOrder
}

// Places implements tensor.Placer.
func (r storedRows) Places(off, n int64) (list []tensor.Extent, ok bool) {
	if r.rowSize == 0 || off%r.rowSize != 0 || n%r.rowSize != 0 {
		return nil, false
	}
	for row := off / r.rowSize; row < (off+n)/r.rowSize; row++ {
		one, ok := tensor.Places(r.stored, r.order(row)*r.rowSize, r.rowSize)
		if !ok {
			return nil, false
		}
		list = append(list, one...)
	}
	return list, true
}

// read fills dst with rows in the order, the first of which is row. Those that follow
// each other in the original are read together: where they are computed, by a product of
// matrices say, a row alone costs many times its share.
func (order rowOrder) read(dst []byte, row, rowSize int64, rows func(dst []byte, from int64) error) error {
	type move struct{ from, to int64 }
	moves := make([]move, int64(len(dst))/rowSize)
	for i := range moves {
		moves[i] = move{order(row + int64(i)), int64(i)}
	}
	slices.SortFunc(moves, func(a, b move) int { return cmp.Compare(a.from, b.from) })
	var buf []byte
	for len(moves) > 0 {
		n := 1
		for n < len(moves) && moves[n].from == moves[n-1].from+1 {
			n++
		}
		if n == 1 {
			if err := rows(dst[moves[0].to*rowSize:][:rowSize], moves[0].from); err != nil {
				return err
			}
		} else {
			buf = slices.Grow(buf[:0], int(int64(n)*rowSize))[:int64(n)*rowSize]
			if err := rows(buf, moves[0].from); err != nil {
				return err
			}
			for i, m := range moves[:n] {
				copy(dst[m.to*rowSize:][:rowSize], buf[int64(i)*rowSize:])
			}
		}
		moves = moves[n:]
	}
	return nil
}

// reordered is Rows in another order.
type reordered struct {
	in    tensor.Rows
	cols  int64
	order rowOrder
}

// ReadRows implements tensor.Rows.
func (r reordered) ReadRows(dst []float32, row int64) error {
	for ; len(dst) > 0; row++ {
		if err := r.in.ReadRows(dst[:r.cols], r.order(row)); err != nil {
			return err
		}
		dst = dst[r.cols:]
	}
	return nil
}
