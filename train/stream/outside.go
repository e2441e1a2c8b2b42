package stream

import (
	"context"
	"fmt"
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// sections is how many sections of a matrix outside the blocks are in memory: the one
// that is used and the one behind it.
const sections = 2

// outside is a matrix outside the blocks. Of embeddings a few rows are read when they
// are used. The head is gone through from end to end: by sections, which are read past
// the page cache, or from memory.
type outside struct {
	s        *Stream
	info     tensor.Info
	head     bool
	resident bool

	mu    sync.Mutex
	rows  tensor.Rows // by a reader
	disks []*disk     // that it reads from
	whole section     // of the matrix, if it is resident
	parts [sections]section
	step  int // rows that are asked for at a time
}

// section is some rows of a matrix in memory, or on their way there.
type section struct {
	part
	mem   []byte
	first int // its first row
	n     int // and how many there are
}

// sectioned reports whether rows of a tensor are bytes of their own.
func sectioned(info tensor.Info) bool { return !info.DType.Opaque() && info.RowSize() > 0 }

// Matrix returns a matrix outside the blocks. If it makes logits and is not resident it
// has a method that goes through it with fewer reads:
//
//	Section(from, n int) (kernel.Matrix, error)
//
// returns n rows from the given one on, which are in memory until others are asked for,
// and reads on behind them. A section is opened as a resident matrix is, so that products
// with the one and the other have the same bits.
func (s *Stream) Matrix(name string) (kernel.Matrix, error) {
	m, ok := s.outside[name]
	if !ok {
		return nil, fmt.Errorf("tensor %q: %w among the matrices outside the blocks", name, tensor.ErrNotFound)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.head && (m.resident || !sectioned(m.info)) {
		return m.inMemory()
	}
	if err := m.openRows(); err != nil {
		return nil, err
	}
	of := matrix{m.rows, m.info.Shape}
	if m.head {
		return sweeping{of, m}, nil
	}
	return of, nil
}

// sweeping is the head as it is on disk.
type sweeping struct {
	matrix
	m *outside
}

// Section returns n rows from the given one on.
func (w sweeping) Section(from, n int) (kernel.Matrix, error) { return w.m.section(from, n) }

// openRows prepares reading single rows, and checks that the files are what they were.
func (m *outside) openRows() error {
	if m.rows == nil {
		raw, err := m.s.src.Raw(m.info.Name)
		if err != nil {
			return err
		}
		for _, x := range tensor.Pieces(raw, 0, m.info.Size()) {
			if x.File == nil || len(m.disks) > 0 && m.disks[len(m.disks)-1].f == x.File {
				continue
			}
			d, err := m.s.disk(x.File)
			if err != nil {
				return fmt.Errorf("tensor %q: %w", m.info.Name, err)
			}
			m.disks = append(m.disks, d)
		}
		if _, m.rows, err = m.s.codecs.OpenFrom(m.s.src, m.info.Name); err != nil {
			return err
		}
	}
	for _, d := range m.disks {
		if err := d.check(); err != nil {
			return fmt.Errorf("tensor %q: %w", m.info.Name, err)
		}
	}
	return nil
}

// inMemory returns the whole matrix, which is read once.
func (m *outside) inMemory() (kernel.Matrix, error) {
	if x := &m.whole; x.ready == nil || x.failed() {
		if err := m.read(x, 0, int(m.info.Shape[0])); err != nil {
			return nil, err
		}
	}
	return m.whole.rows(m, 0, m.whole.n)
}

// section returns rows of the matrix in memory.
func (m *outside) section(from, n int) (kernel.Matrix, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := int(m.info.Shape[0])
	if from < 0 || n <= 0 || from > all-n {
		return nil, fmt.Errorf("tensor %q: rows %d to %d of %d asked for", m.info.Name, from, from+n, all)
	}
	own := m.find(from, n)
	if own < 0 {
		own = 0
		if err := m.read(&m.parts[own], from, n); err != nil {
			return nil, err
		}
	}
	rows, err := m.parts[own].rows(m, from, n)
	if err != nil {
		return nil, err
	}
	// Behind the last rows come the first, for the next time.
	next := from + n
	if next < all {
		m.step = n
	} else {
		next = 0
	}
	if n = min(max(n, m.step), all-next); m.find(next, n) < 0 {
		err = m.read(&m.parts[1-own], next, n)
	}
	return rows, err
}

// find returns the section that has or is getting all of the rows, -1 if there is none.
func (m *outside) find(from, n int) int {
	for i := range m.parts {
		if x := &m.parts[i]; x.ready != nil && !x.failed() && x.first <= from && from+n <= x.first+x.n {
			return i
		}
	}
	return -1
}

// failed reports whether the rows could not be read.
func (x *section) failed() bool {
	select {
	case <-x.ready:
		return x.err != nil
	default:
		return false
	}
}

// read begins to read n rows from the given one on into the section, once it is not
// being read to any more.
func (m *outside) read(x *section, from, n int) error {
	if x.ready != nil {
		<-x.ready
	}
	size := m.info.Size()
	if n < int(m.info.Shape[0]) {
		size = int64(n) * m.info.RowSize()
	}
	if room := roomOf(size); int64(len(x.mem)) < room {
		freeRegion(x.mem)
		x.mem = nil
		mem, err := newRegion(roundUp(room, page))
		if err != nil {
			return fmt.Errorf("tensor %q: %w", m.info.Name, err)
		}
		x.mem = mem
	}
	x.first, x.n = from, n
	x.part = part{name: m.info.Name, first: int64(from) * m.info.RowSize(), size: size, room: x.mem[:roomOf(size)]}
	m.s.mu.Lock()
	m.s.ask([]*part{&x.part}, true)
	m.s.mu.Unlock()
	return nil
}

// rows returns n rows of the section from the given one on, once they are there.
func (x *section) rows(m *outside, from, n int) (kernel.Matrix, error) {
	if err := m.s.await(context.Background(), x.ready, &x.part); err != nil {
		return nil, err
	}
	info, data := m.info, x.data
	if n < int(info.Shape[0]) {
		info.Shape = tensor.Shape{int64(n), info.Shape[1]}
		data = data[int64(from-x.first)*info.RowSize():][:info.Size()]
	}
	opened, err := m.s.codecs.Open(info, tensor.Memory(data))
	if err != nil {
		return nil, err
	}
	return MatrixOf(opened, info.Shape), nil
}

func (m *outside) free() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range []*section{&m.whole, &m.parts[0], &m.parts[1]} {
		freeRegion(x.mem)
		x.mem, x.data = nil, nil
	}
}
