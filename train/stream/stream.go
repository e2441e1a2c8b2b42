package stream

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/tensor"
)

// Options say how much of a model is in memory at a time.
type Options struct {
	// Slots is the number of blocks: the leased one and those read ahead. At
	// least 2, at most all of them; at all of them the model is resident and
	// each block is read once.
	Slots int

	// Pinned is how many of the slots keep the first blocks for good. At least two
	// others are left, unless the model is resident.
	Pinned int

	// ResidentHead says that the matrix that makes logits stays in memory once it has
	// been read.
	ResidentHead bool

	// Skip names tensors that are not needed, because they are being trained
	// and live elsewhere. It may be nil.
	Skip func(name string) bool
}

// slots returns how many slots there are for a model of that many blocks, and how many
// of them are pinned.
func (o Options) slots(blocks int) (n, pinned int) {
	n = min(max(2, o.Slots), blocks)
	if n == blocks {
		return n, n
	}
	return n, max(0, min(o.Pinned, n-2))
}

// Stream leases the blocks of one model. It is safe for concurrent use.
type Stream struct {
	src     tensor.Source
	codecs  tensor.Codecs
	blocks  []*layout
	outside map[string]*outside
	vectors map[string][]float32

	// resident says that each block is read once: by way of the page cache, where the
	// file may be and is welcome to stay for the next run.
	resident bool

	disksMu sync.Mutex
	disks   map[*os.File]*disk

	mu            sync.Mutex
	slots         []*slot
	urgent, later []*part       // what is to be read
	work          sync.Cond     // there is more of it, or the Stream is closed
	quiet         chan struct{} // closed, and made anew, when a slot is not read to any more
	closing       bool
	stats         Stats

	windows          []byte // the readers'
	done             sync.WaitGroup
	direct, buffered atomic.Int64
}

// Stats counts what a Stream has done.
type Stats struct {
	// BytesRead is the number of stored bytes read for blocks, HeadRead that for the
	// matrix that makes logits.
	BytesRead, HeadRead int64

	// Direct and Buffered are the numbers of reads past the page cache and through it.
	Direct, Buffered int64

	// Waited is how long leases had to wait for the readers.
	Waited time.Duration
}

// New returns a Stream over the blocks of m as src has them. It checks that
// every tensor is there with the right shape and a codec, and reads nothing but
// the vectors outside the blocks. Close ends it.
func New(src tensor.Source, codecs tensor.Codecs, m *arch.Model, o Options) (_ *Stream, err error) {
	s := &Stream{
		src: src, codecs: codecs,
		outside: make(map[string]*outside),
		vectors: make(map[string][]float32),
		disks:   make(map[*os.File]*disk),
		quiet:   make(chan struct{}),
	}
	s.work.L = &s.mu
	n, pinned := o.slots(int(m.NumHiddenLayers))
	s.resident = n == int(m.NumHiddenLayers)
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.layOut(m, o); err != nil {
		return nil, err
	}
	var room int64
	var floats int
	for _, l := range s.blocks {
		room, floats = max(room, l.room), max(floats, l.floats)
	}
	for i := range n {
		x := &slot{block: -1, pinned: i < pinned, floats: make([]float32, floats)}
		if x.mem, err = newRegion(roundUp(room, page)); err != nil {
			return nil, fmt.Errorf("a block's place: %w", err)
		}
		s.slots = append(s.slots, x)
	}
	if s.windows, err = newRegion(readers * windowBytes); err != nil {
		return nil, err
	}
	for i := range readers {
		s.done.Go(func() { s.readAhead(s.windows[i*windowBytes:][:windowBytes:windowBytes]) })
	}
	return s, nil
}

// layOut finds all tensors, and reads the vectors outside the blocks.
func (s *Stream) layOut(m *arch.Model, o Options) error {
	decodable := func(info tensor.Info) error {
		if _, ok := s.codecs[info.DType]; !ok {
			return fmt.Errorf("tensor %q: %w: no decoder for %v", info.Name, tensor.ErrUnsupported, info.DType)
		}
		return nil
	}
	for b := range int(m.NumHiddenLayers) {
		l, err := layoutOf(s.src, m, b, o.Skip)
		if err != nil {
			return err
		}
		for _, p := range l.places {
			if err := decodable(p.info); err != nil {
				return err
			}
		}
		s.blocks = append(s.blocks, l)
	}
	head := headOf(m)
	for _, t := range m.Tensors() {
		if t.Layer >= 0 || o.Skip != nil && o.Skip(t.Name) {
			continue
		}
		info, err := infoOf(s.src, m, t)
		if err != nil {
			return err
		}
		if err := decodable(info); err != nil {
			return err
		}
		if len(info.Shape) == 1 {
			if _, s.vectors[t.Name], err = s.codecs.ReadAll(s.src, t.Name); err != nil {
				return err
			}
			continue
		}
		s.outside[t.Name] = &outside{s: s, info: info, head: t.Name == head, resident: o.ResidentHead}
	}
	return nil
}

// Close stops the readers and gives back the memory, but for slots that are leased,
// which do so when they are released. A second Close does nothing.
func (s *Stream) Close() {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	s.closing = true
	s.work.Broadcast()
	s.mu.Unlock()
	s.done.Wait()

	s.mu.Lock()
	for _, p := range slices.Concat(s.urgent, s.later) {
		s.end(p, errClosed)
	}
	s.urgent, s.later = nil, nil
	for _, x := range s.slots {
		if x.users == 0 {
			x.free()
		}
	}
	s.mu.Unlock()
	for _, m := range s.outside {
		m.free()
	}
	freeRegion(s.windows)
	for _, d := range s.disks {
		d.close()
	}
}

// Stats returns the counts so far.
func (s *Stream) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Direct, st.Buffered = s.direct.Load(), s.buffered.Load()
	return st
}

// Vector returns a vector outside the blocks.
func (s *Stream) Vector(name string) ([]float32, error) {
	v, ok := s.vectors[name]
	if !ok {
		return nil, fmt.Errorf("tensor %q: %w among the vectors outside the blocks", name, tensor.ErrNotFound)
	}
	return v, nil
}
