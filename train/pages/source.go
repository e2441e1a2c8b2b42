package pages

import (
	"io"
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/scratch"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/optim"
)

// Values returns the parameters as a Source of F32 tensors, which reads them from where
// they are: as they are now, until the next Update.
func (s *Store) Values() tensor.Source {
	return s.source(func(i int, p *optim.Param) []tensor.Entry {
		x := &s.places[i]
		if x.paged {
			return []tensor.Entry{entry(p.Info(), s.onDisk(x.valuesAt))}
		}
		return []tensor.Entry{entry(p.Info(), inMemory(kernel.Bytes(p.Data)))}
	})
}

// State returns the same for what the optimizer keeps of them.
func (s *Store) State() tensor.Source {
	return s.source(func(i int, p *optim.Param) (out []tensor.Entry) {
		x := &s.places[i]
		for k, f := range x.fields {
			read := s.onDisk(x.stateAt + x.offset[k])
			if !x.paged {
				read = inMemory(s.states[i][k])
			}
			out = append(out, entry(f.Info(p), read))
		}
		return out
	})
}

func (s *Store) source(of func(i int, p *optim.Param) []tensor.Entry) tensor.Source {
	var entries []tensor.Entry
	for i, p := range s.params {
		entries = append(entries, of(i, p)...)
	}
	t, err := tensor.NewTable(nil, entries)
	if err != nil {
		panic("pages: two parameters of one name: " + err.Error())
	}
	return t
}

// reading fills dst with the bytes at off of a tensor, as they are in memory.
type reading func(dst []byte, off int64) error

func entry(info tensor.Info, read reading) tensor.Entry {
	size := info.RowSize()
	return tensor.Entry{Info: info, Open: func() (io.ReaderAt, error) {
		return tensor.ReadRowsAt(size, info.Shape.Rows(), func(dst []byte, row int64) error {
			if err := read(dst, row*size); err != nil {
				return err
			}
			if info.DType == tensor.F32 {
				kernel.NativeF32(dst)
			}
			return nil
		}), nil
	}}
}

func inMemory(b []byte) reading {
	return func(dst []byte, off int64) error {
		copy(dst, b[off:])
		return nil
	}
}

// bounceBytes is how much is read of the file at a time.
const bounceBytes = 1 << 20

var bounce = sync.Pool{New: func() any {
	b := scratch.Buffer(bounceBytes)
	return &b
}}

// onDisk reads from the file, whose transfers are of whole pages.
func (s *Store) onDisk(at int64) reading {
	return func(dst []byte, off int64) error {
		b := bounce.Get().(*[]byte)
		defer bounce.Put(b)
		for len(dst) > 0 {
			from := at + off
			first := from / scratch.Page * scratch.Page
			n := min(int64(bounceBytes), scratch.Pages(from+int64(len(dst)))-first)
			if err := s.file.Read((*b)[:n], first).Wait(); err != nil {
				return err
			}
			k := copy(dst, (*b)[from-first:n])
			dst, off = dst[k:], off+int64(k)
		}
		return nil
	}
}

// Load gives all parameters values and states from tensors as Values and State give
// them.
func (s *Store) Load(values, state tensor.Source) error {
	return s.each(false, func(i int, st [][]byte) error {
		p := s.params[i]
		if err := optim.Load(kernel.Bytes(p.Data), p.Info(), values); err != nil {
			return err
		}
		for k, f := range s.places[i].fields {
			if err := optim.Load(st[k], f.Info(p), state); err != nil {
				return err
			}
		}
		return nil
	})
}
