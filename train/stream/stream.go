package stream

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Options say how much of a model is in memory at a time.
type Options struct {
	// Slots is the number of blocks: the leased one and those read ahead. At
	// least 2, at most all of them; at all of them the model is resident and
	// each block is read once.
	Slots int

	// Skip names tensors that are not needed, because they are being trained
	// and live elsewhere. It may be nil.
	Skip func(name string) bool
}

// Stream leases the blocks of one model. It is safe for concurrent use.
type Stream struct {
	src     tensor.Source
	codecs  tensor.Codecs
	blocks  [][]tensor.Info
	outside map[string]tensor.Info
	vectors map[string][]float32

	mu      sync.Mutex
	slots   []*slot
	queue   chan *slot
	stopped chan struct{}
	stop    sync.Once
	done    sync.WaitGroup
	stats   Stats
}

// Stats counts what a Stream has done.
type Stats struct {
	// BytesRead is the number of stored bytes read for blocks.
	BytesRead int64

	// Waited is how long leases had to wait for the reader.
	Waited time.Duration
}

// slot is a buffer for one block.
type slot struct {
	block int // -1 while empty
	users int
	ready chan struct{} // closed when the block is there, or err is
	err   error

	buf      []byte
	vectors  map[string][]float32
	matrices map[string]kernel.Matrix
}

// New returns a Stream over the blocks of m as src has them. It checks that
// every tensor is there with the right shape and a codec, and reads nothing but
// the vectors outside the blocks. Close ends it.
func New(src tensor.Source, codecs tensor.Codecs, m *arch.Model, o Options) (*Stream, error) {
	s := &Stream{
		src: src, codecs: codecs,
		blocks:  make([][]tensor.Info, m.NumHiddenLayers),
		outside: make(map[string]tensor.Info),
		vectors: make(map[string][]float32),
		stopped: make(chan struct{}),
	}
	for _, t := range m.Tensors() {
		if o.Skip != nil && o.Skip(t.Name) {
			continue
		}
		info, err := src.Info(t.Name)
		if err != nil {
			return nil, fmt.Errorf("%w: the %s family needs it", err, m.Name)
		}
		if !slices.Equal(info.Shape, t.Dims) {
			return nil, fmt.Errorf("tensor %q: %w: shape %v, config.json makes it %v", t.Name, tensor.ErrMalformed, info.Shape, tensor.Shape(t.Dims))
		}
		if _, ok := codecs[info.DType]; !ok {
			return nil, fmt.Errorf("tensor %q: %w: no decoder for %v", t.Name, tensor.ErrUnsupported, info.DType)
		}
		if t.Layer >= 0 {
			s.blocks[t.Layer] = append(s.blocks[t.Layer], info)
			continue
		}
		s.outside[t.Name] = info
		if len(info.Shape) == 1 {
			if _, s.vectors[t.Name], err = codecs.ReadAll(src, t.Name); err != nil {
				return nil, err
			}
		}
	}
	n := min(max(2, o.Slots), len(s.blocks))
	for range n {
		s.slots = append(s.slots, &slot{block: -1})
	}
	s.queue = make(chan *slot, n)
	s.done.Go(s.readAhead)
	return s, nil
}

// BlockBytes returns the most bytes that a block of m occupies in src: the size
// of a slot.
func BlockBytes(src tensor.Source, m *arch.Model) (int64, error) {
	var most int64
	for l := range int(m.NumHiddenLayers) {
		var n int64
		for _, t := range m.Block(l) {
			info, err := src.Info(t.Name)
			if err != nil {
				return 0, err
			}
			n += info.Size()
		}
		most = max(most, n)
	}
	return most, nil
}

// Close stops the reader. Leases must have been released. A second Close does
// nothing.
func (s *Stream) Close() {
	s.stop.Do(func() { close(s.stopped) })
	s.done.Wait()
}

// Stats returns the counts so far.
func (s *Stream) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Lease is one block in memory. It gives the tensors outside the blocks too.
type Lease struct {
	s    *Stream
	slot *slot
}

// Lease returns block number i and starts reading the next ones into what slots
// are free. The caller must Release it.
func (s *Stream) Lease(ctx context.Context, i int, next ...int) (*Lease, error) {
	start := time.Now()
	s.mu.Lock()
	order := append([]int{i}, next...)
	own := s.find(i)
	for own == nil {
		if own = s.vacate(order, 0); own != nil {
			s.fetch(own, i)
			break
		}
		// Every slot is leased or being filled. One that is being filled will
		// be free to take.
		busy := s.unready()
		s.mu.Unlock()
		if busy == nil {
			return nil, fmt.Errorf("block %d: all %d slots are leased", i, len(s.slots))
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		s.mu.Lock()
		own = s.find(i)
	}
	own.users++
	for at, j := range order {
		if j < 0 || j >= len(s.blocks) || s.find(j) != nil {
			continue
		}
		ahead := s.vacate(order, at)
		if ahead == nil {
			break
		}
		s.fetch(ahead, j)
	}
	ready := own.ready
	s.mu.Unlock()

	select {
	case <-ready:
	case <-ctx.Done():
		s.release(own)
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	s.stats.Waited += time.Since(start)
	err := own.err
	s.mu.Unlock()
	if err != nil {
		s.release(own)
		return nil, fmt.Errorf("block %d: %w", i, err)
	}
	return &Lease{s, own}, nil
}

// find returns the slot that has or is getting a block, unless that failed.
func (s *Stream) find(block int) *slot {
	for _, x := range s.slots {
		if x.block == block && x.err == nil {
			return x
		}
	}
	return nil
}

// unready returns the channel that announces the next slot to be filled for
// nobody in particular, nil if there is none.
func (s *Stream) unready() chan struct{} {
	for _, x := range s.slots {
		if x.block < 0 || x.users > 0 {
			continue
		}
		select {
		case <-x.ready:
		default:
			return x.ready
		}
	}
	return nil
}

// vacate returns a slot that may be filled anew: one that is empty, or whose
// block is there, not leased, and of those the one whose next use is farthest.
// order is what is to come; a block that is used at position after or before is
// kept.
func (s *Stream) vacate(order []int, after int) *slot {
	var found *slot
	farthest := after
	for _, x := range s.slots {
		if x.block < 0 {
			return x
		}
		select {
		case <-x.ready:
		default:
			continue // still being read
		}
		if x.users > 0 {
			continue
		}
		use := slices.Index(order, x.block)
		if use < 0 || x.err != nil {
			use = len(order)
		}
		if use > farthest {
			found, farthest = x, use
		}
	}
	return found
}

// fetch hands a vacant slot to the reader.
func (s *Stream) fetch(x *slot, block int) {
	x.block, x.err, x.ready = block, nil, make(chan struct{})
	s.queue <- x // has room for every slot
}

func (s *Stream) release(x *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.users--
}

// readAhead is the background reader.
func (s *Stream) readAhead() {
	for {
		select {
		case <-s.stopped:
			return
		case x := <-s.queue:
			n, err := s.read(x)
			s.mu.Lock()
			x.err = err
			s.stats.BytesRead += n
			s.mu.Unlock()
			close(x.ready)
		}
	}
}

// read fills a slot with its block, tensor by tensor.
func (s *Stream) read(x *slot) (n int64, err error) {
	list := s.blocks[x.block]
	var size int64
	for _, info := range list {
		size += info.Size()
	}
	if int64(cap(x.buf)) < size {
		x.buf = make([]byte, size)
	}
	x.vectors, x.matrices = make(map[string][]float32), make(map[string]kernel.Matrix)
	rest := x.buf[:size]
	for _, info := range list {
		select {
		case <-s.stopped:
			return n, context.Canceled
		default:
		}
		b := rest[:info.Size():info.Size()]
		rest = rest[info.Size():]
		r, err := s.src.Raw(info.Name)
		if err != nil {
			return n, err
		}
		if _, err := io.ReadFull(r, b); err != nil {
			return n, fmt.Errorf("tensor %q: %w", info.Name, err)
		}
		n += int64(len(b))
		rows, err := s.codecs.Open(info, tensor.Memory(b))
		if err != nil {
			return n, err
		}
		if len(info.Shape) != 1 {
			x.matrices[info.Name] = MatrixOf(rows, info.Shape)
			continue
		}
		v := make([]float32, info.Shape.Elems())
		if err := rows.ReadRows(v, 0); err != nil {
			return n, fmt.Errorf("tensor %q: %w", info.Name, err)
		}
		x.vectors[info.Name] = v
	}
	return n, nil
}

// Release ends the lease; nothing of it may be used afterwards.
func (l *Lease) Release() { l.s.release(l.slot) }

// Matrix implements model.Weights.
func (l *Lease) Matrix(name string) (kernel.Matrix, error) {
	if m, ok := l.slot.matrices[name]; ok {
		return m, nil
	}
	return l.s.Matrix(name)
}

// Experts implements model.Leased: all of a block is read.
func (l *Lease) Experts([]int) (wait func(expert int) error) {
	return func(int) error { return nil }
}

// Vector implements model.Weights.
func (l *Lease) Vector(name string) ([]float32, error) {
	if v, ok := l.slot.vectors[name]; ok {
		return v, nil
	}
	return l.s.Vector(name)
}

// Matrix returns a matrix outside the blocks, the rows of which are read when
// they are used.
func (s *Stream) Matrix(name string) (kernel.Matrix, error) {
	info, ok := s.outside[name]
	if !ok || len(info.Shape) != 2 {
		return nil, fmt.Errorf("tensor %q: %w among the matrices outside the blocks", name, tensor.ErrNotFound)
	}
	_, rows, err := s.codecs.OpenFrom(s.src, name)
	if err != nil {
		return nil, err
	}
	return MatrixOf(rows, info.Shape), nil
}

// Vector returns a vector outside the blocks.
func (s *Stream) Vector(name string) ([]float32, error) {
	v, ok := s.vectors[name]
	if !ok {
		return nil, fmt.Errorf("tensor %q: %w among the vectors outside the blocks", name, tensor.ErrNotFound)
	}
	return v, nil
}

// MatrixOf returns a tensor of two dimensions as a kernel sees it: kernel.Tiles if its rows are
// tensor.Tiles, and kernel.Dots if they know how to multiply.
func MatrixOf(rows tensor.Rows, shape tensor.Shape) kernel.Matrix {
	m := matrix{rows, shape}
	t, ok := rows.(tensor.Tiles)
	if !ok {
		return m
	}
	if d, ok := rows.(dotter); ok {
		return dots{tiles{m, t}, d}
	}
	return tiles{m, t}
}

type matrix struct {
	rows  tensor.Rows
	shape tensor.Shape
}

// Dims implements kernel.Matrix.
func (m matrix) Dims() (rows, cols int) { return int(m.shape.Rows()), int(m.shape.Cols()) }

// DecodeRows implements kernel.Matrix.
func (m matrix) DecodeRows(dst []float32, row int) error { return m.rows.ReadRows(dst, int64(row)) }

type tiles struct {
	matrix
	tensor.Tiles
}

// DecodeTile implements kernel.Tiles.
func (t tiles) DecodeTile(dst []float32, ld, row, rows, col, cols int) error {
	return t.ReadTile(dst, ld, int64(row), rows, col, cols)
}

// dotter is what kernel.Dots and kernel.Packer have beside kernel.Tiles.
type dotter interface {
	DotRows(y []float32, ldy int, x []float32, m, row, n int) error
	PackTile(dst []float32, ld, row, rows, col, cols, nextRow, nextCol int) error
}

type dots struct {
	tiles
	dotter
}
