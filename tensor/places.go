package tensor

import "io"

// Places is Extents for whoever can do with many small ones: the rows of a tensor whose
// reader is a Placer, too.
func Places(r io.ReaderAt, off, n int64) ([]Extent, bool) {
	if s, ok := r.(*io.SectionReader); ok {
		outer, start, size := s.Outer()
		if off < 0 || n > size-off {
			return nil, false
		}
		return Places(outer, start+off, n)
	}
	if p, ok := r.(Placer); ok {
		return p.Places(off, n)
	}
	return Extents(r, off, n)
}

// A Placer reads stored bytes in another order, and knows where they are.
type Placer interface {
	Places(off, n int64) ([]Extent, bool)
}
