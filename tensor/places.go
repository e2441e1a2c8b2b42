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

// A Piece is a run of bytes: those of an Extent or, where its File is nil, Size bytes
// that R has from Off on.
type Piece struct {
	Extent
	R io.ReaderAt
}

// Pieces returns what the n bytes of r at off consist of, in order: Places where they
// are stored, and readers for what is not, such as the header of an encoding. Bytes
// that r does not have are a piece too, which cannot be read.
func Pieces(r io.ReaderAt, off, n int64) []Piece {
	switch r := r.(type) {
	case *io.SectionReader:
		if outer, start, size := r.Outer(); off >= 0 && n <= size-off {
			return Pieces(outer, start+off, n)
		}
	case readers:
		var out []Piece
		at := off
		for _, part := range r {
			if at >= part.size {
				at -= part.size
				continue
			}
			take := min(n, part.size-at)
			if take == 0 {
				break
			}
			out = append(out, Pieces(part.r, at, take)...)
			at, off, n = 0, off+take, n-take
		}
		if n == 0 {
			return out
		}
		return append(out, Piece{Extent{nil, off, n}, r})
	}
	list, ok := Places(r, off, n)
	if !ok {
		return []Piece{{Extent{nil, off, n}, r}}
	}
	out := make([]Piece, len(list))
	for i, e := range list {
		out[i].Extent = e
	}
	return out
}
