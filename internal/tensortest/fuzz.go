package tensortest

import (
	"io"

	"github.com/seed18967229/nibble/tensor"
)

// FromBytes returns a source that a fuzzer makes up: tensors of few layers with
// the given endings of names, of any dtype of safetensors and any shape, sizes
// beyond any file among them. Their bytes are all code, and are never in memory.
// What no reader would let pass (a name twice, an impossible shape) is left out.
func FromBytes(layout []byte, endings []string, code byte) tensor.Source {
	next := func() int {
		if len(layout) == 0 {
			return 0
		}
		b := layout[0]
		layout = layout[1:]
		return int(b)
	}
	var entries []tensor.Entry
	seen := make(map[string]bool)
	for len(layout) > 0 && len(entries) < 64 {
		n := next()
		name := string(rune('a'+n/len(endings)%3)) + endings[n%len(endings)]
		info := tensor.Info{Name: name, DType: tensor.Bool + tensor.DType(next())%(tensor.U64-tensor.Bool+1)}
		for range next() % 5 {
			d := int64(next())
			if d >= 240 { // a size that only a header can claim
				d = int64(1) << (d - 200)
			}
			info.Shape = append(info.Shape, d)
		}
		if info.Validate() != nil || seen[name] {
			continue
		}
		seen[name] = true
		entries = append(entries, tensor.Entry{Info: info, Open: func() (io.ReaderAt, error) { return repeated(code), nil }})
	}
	src, err := tensor.NewTable(nil, entries)
	if err != nil {
		panic(err) // each has been checked
	}
	return src
}

// repeated is one byte without end.
type repeated byte

// ReadAt implements io.ReaderAt.
func (r repeated) ReadAt(p []byte, _ int64) (int, error) {
	for i := range p {
		p[i] = byte(r)
	}
	return len(p), nil
}

// ReadLastRows decodes the last row of every tensor whose rows are not long, and
// returns the first error.
func ReadLastRows(src tensor.Source, codecs tensor.Codecs) error {
	for info := range src.All() {
		if err := info.Validate(); err != nil {
			return err
		}
		if _, ok := codecs[info.DType]; !ok || info.Shape.Elems() == 0 || info.Shape.Cols() > 1<<16 {
			continue
		}
		_, rows, err := codecs.OpenFrom(src, info.Name)
		if err == nil {
			err = rows.ReadRows(make([]float32, info.Shape.Cols()), info.Shape.Rows()-1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
