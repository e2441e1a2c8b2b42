package convert

import (
	"io"
	"slices"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Views of stored tensors: how each is opened in the other form. A vector has
// rows of one element.

// stack returns the entry of tensors of one shape and dtype, one after another.
// Encodings that carry a header with each tensor are decoded to F32.
func stack(src tensor.Source, codecs tensor.Codecs, infos []tensor.Info, as string) tensor.Entry {
	out := tensor.Info{Name: as, DType: infos[0].DType, Shape: append(tensor.Shape{int64(len(infos))}, infos[0].Shape...)}
	parts := make([]tensor.Part, len(infos))
	for i, info := range infos {
		e := tensor.Forward(src, info, info.Name)
		if slices.ContainsFunc(infos, func(x tensor.Info) bool { return x.DType.Opaque() || x.DType != infos[0].DType }) {
			out.DType = tensor.F32
			e = decoded(src, codecs, info, info.Name, nil)
		}
		parts[i] = tensor.Part{Size: e.Info.Size(), Open: e.Open}
	}
	return tensor.Entry{Info: out, Open: tensor.Concat(parts...)}
}

// decoded returns the entry of a tensor in F32, each row changed by change,
// which may be nil.
func decoded(src tensor.Source, codecs tensor.Codecs, info tensor.Info, as string, change func(w []float32)) tensor.Entry {
	out := tensor.Info{Name: as, DType: tensor.F32, Shape: info.Shape}
	return tensor.Entry{Info: out, Open: func() (io.ReaderAt, error) {
		_, in, err := codecs.OpenFrom(src, info.Name)
		if err != nil {
			return nil, err
		}
		enc, err := codecs.Encoder(tensor.F32)
		if err != nil {
			return nil, err
		}
		rows := func(w []float32, _ int64) error {
			if change != nil {
				change(w)
			}
			return nil
		}
		return tensor.Compute(out, in, rows, enc).Open()
	}}
}

// plusOne returns the entry of a norm's weight plus 1, in F32. Of F16 weights
// the sum is rounded to F16 first, as numpy does it for llama.cpp's converter.
func plusOne(src tensor.Source, codecs tensor.Codecs, info tensor.Info, as string) tensor.Entry {
	return decoded(src, codecs, info, as, func(w []float32) {
		for i, v := range w {
			w[i] = v + 1
			if info.DType == tensor.F16 {
				w[i] = kernel.F16ToF32(kernel.F32ToF16(w[i]))
			}
		}
	})
}

// minusOne undoes plusOne. It gives the weight back exactly if no bit of it was
// below the last place of the sum: 2^-23 for weights from 0 to 1.
func minusOne(src tensor.Source, codecs tensor.Codecs, info tensor.Info, as string) tensor.Entry {
	return decoded(src, codecs, info, as, func(w []float32) {
		for i, v := range w {
			w[i] = v - 1
		}
	})
}

// transposed returns the entry of a matrix with rows and columns exchanged.
// Elements that cannot be told apart in storage are decoded to F32.
func transposed(src tensor.Source, codecs tensor.Codecs, info tensor.Info, as string) tensor.Entry {
	out := tensor.Info{Name: as, DType: info.DType, Shape: tensor.Shape{info.Shape[1], info.Shape[0]}}
	elems, size := info.DType.Block()
	raw := elems == 1
	if !raw {
		out.DType, size = tensor.F32, 4
	}
	return tensor.Entry{Info: out, Open: func() (io.ReaderAt, error) {
		var in io.ReaderAt
		var err error
		if raw {
			in, err = src.Raw(info.Name)
		} else {
			in, err = decoded(src, codecs, info, as, nil).Open()
		}
		if err != nil {
			return nil, err
		}
		rows, cols := info.Shape[0], info.Shape[1]
		return tensor.ReadRowsAt(rows*size, cols, func(dst []byte, first int64) error {
			return readColumns(dst, in, first, rows, cols, size)
		}), nil
	}}
}

// readColumns fills dst with columns of a matrix of rows x cols elements, the
// first of which is given, one after another.
func readColumns(dst []byte, in io.ReaderAt, first, rows, cols, size int64) error {
	n := int64(len(dst)) / (rows * size)
	part := make([]byte, n*size)
	for r := range rows {
		if k, err := in.ReadAt(part, (r*cols+first)*size); k < len(part) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		for c := range n {
			copy(dst[(c*rows+r)*size:][:size], part[c*size:])
		}
	}
	return nil
}
