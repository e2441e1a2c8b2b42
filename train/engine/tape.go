package engine

import (
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/scratch"
)

// ring is how many records of what is on disk are in memory: one that is worked with,
// and one that is being written or read meanwhile.
const ring = 2

// tape holds a record, an array of floats, of each block and micro-batch from the way
// forward to the way back: those of the last blocks in memory, those of some before on
// disk, and none of the others.
type tape struct {
	blocks, kept, spilled int
	dir                   string
	floats                func(layer, tokens int) int

	// What there is room for: so many micro-batches of so many tokens.
	batches, tokens int
	memory          [][][]float32 // by block, from the first that is kept on, and micro-batch
	file            *scratch.File
	record          int64 // bytes from record to record in the file
	pages           []page
	turn            int // the page to be written next

	// The step: tokens of each micro-batch, and the place on the way back of the next
	// record to be read ahead.
	lens  []int
	ahead int

	done scratch.Stats // by files that are closed
}

// page is a buffer for a record on disk.
type page struct {
	buf         []byte
	holds       int  // the number of the record, -1 for none
	taken       bool // it is, or will be, what the way back asks for
	wrote, read *scratch.Transfer
}

// stored is what a tape takes.
type stored struct{ memory, ring, disk int64 }

// need returns what a tape takes for so many micro-batches of so many tokens.
func (t *tape) need(batches, tokens int) (n stored) {
	for l := range t.blocks {
		size := int64(t.floats(l, tokens)) * 4
		switch {
		case l >= t.blocks-t.kept:
			n.memory += size * int64(batches)
		case l >= t.first():
			n.ring = max(n.ring, ring*scratch.Pages(size))
		}
	}
	n.disk = n.ring / ring * int64(t.spilled*batches)
	return n
}

// first returns the first block with a record on disk.
func (t *tape) first() int { return t.blocks - t.kept - t.spilled }

// reserve makes room for so many micro-batches of so many tokens, in memory and on disk.
func (t *tape) reserve(batches, tokens int) error {
	if batches <= t.batches && tokens <= t.tokens {
		return nil
	}
	batches, tokens = max(batches, t.batches), max(tokens, t.tokens)
	t.release()
	need := t.need(batches, tokens)
	if need.disk > 0 {
		var err error
		if t.file, err = scratch.Create(t.dir, need.disk); err != nil {
			return err
		}
		t.record = need.ring / ring
		for range ring {
			t.pages = append(t.pages, page{buf: scratch.Buffer(t.record), holds: -1})
		}
	}
	for l := t.blocks - t.kept; l < t.blocks; l++ {
		list := make([][]float32, batches)
		for k := range list {
			list[k] = make([]float32, t.floats(l, tokens))
		}
		t.memory = append(t.memory, list)
	}
	t.batches, t.tokens = batches, tokens
	return nil
}

// release gives up all room.
func (t *tape) release() {
	if t.file != nil {
		t.file.Close()
		t.done = t.done.Add(t.file.Stats())
		t.file = nil
	}
	t.batches, t.tokens, t.memory, t.pages = 0, 0, nil, nil
}

// stats returns what has been written, read and waited for.
func (t *tape) stats() scratch.Stats {
	if t.file == nil {
		return t.done
	}
	return t.done.Add(t.file.Stats())
}

// begin begins a step with micro-batches of the given numbers of tokens, for which there
// is room.
func (t *tape) begin(lens []int) {
	t.lens = lens
	for i := range t.pages {
		_ = t.pages[i].wait() // of a step that ended early
		t.pages[i] = page{buf: t.pages[i].buf, holds: -1}
	}
}

func (p *page) wait() error {
	for _, x := range []**scratch.Transfer{&p.wrote, &p.read} {
		if *x == nil {
			continue
		}
		err := (*x).Wait()
		if *x = nil; err != nil {
			return err
		}
	}
	return nil
}

// size returns the floats of a record.
func (t *tape) size(l, k int) int { return t.floats(l, t.lens[k]) }

// put returns the record of block l and micro-batch k to be filled; nil if there is none.
// When it is, written must be told.
func (t *tape) put(l, k int) ([]float32, error) {
	switch {
	case l >= t.blocks-t.kept:
		return t.memory[l-t.blocks+t.kept][k][:t.size(l, k)], nil
	case l < t.first():
		return nil, nil
	}
	p := &t.pages[t.turn]
	if err := p.wait(); err != nil {
		return nil, err
	}
	p.holds = t.number(l, k)
	return kernel.Floats(p.buf)[:t.size(l, k)], nil
}

// written says that the record that put returned is filled.
func (t *tape) written(l, k int) {
	if t.onDisk(l) {
		p := &t.pages[t.turn]
		p.wrote = t.file.Write(t.bytes(p, l, k), int64(p.holds)*t.record)
		t.turn = (t.turn + 1) % len(t.pages)
	}
}

func (t *tape) onDisk(l int) bool { return t.first() <= l && l < t.blocks-t.kept }

// number returns the place of a record in the file.
func (t *tape) number(l, k int) int { return (l-t.first())*t.batches + k }

// bytes returns the pages of a record in its buffer.
func (t *tape) bytes(p *page, l, k int) []byte { return p.buf[:scratch.Pages(int64(t.size(l, k))*4)] }

// rewind begins the way back: through the blocks downwards, each with its micro-batches
// upwards.
func (t *tape) rewind() {
	t.ahead = 0
	t.readAhead()
}

// readAhead reads records in the order in which they will be asked for into pages that
// are free. What was written last is still there.
func (t *tape) readAhead() {
	for ; t.ahead < t.spilled*len(t.lens); t.ahead++ {
		l, k := t.blocks-t.kept-1-t.ahead/len(t.lens), t.ahead%len(t.lens)
		p := t.find(t.number(l, k))
		if p == nil {
			if p = t.free(); p == nil {
				return
			}
			p.holds = t.number(l, k)
			p.read = t.file.Read(t.bytes(p, l, k), int64(p.holds)*t.record)
		}
		p.taken = true
	}
}

func (t *tape) find(number int) *page {
	for i := range t.pages {
		if t.pages[i].holds == number {
			return &t.pages[i]
		}
	}
	return nil
}

func (t *tape) free() *page {
	for i := range t.pages {
		if !t.pages[i].taken {
			return &t.pages[i]
		}
	}
	return nil
}

// get returns the record of block l and micro-batch k, nil if there is none. When it is
// not needed any more, used must be told.
func (t *tape) get(l, k int) ([]float32, error) {
	switch {
	case l >= t.blocks-t.kept:
		return t.memory[l-t.blocks+t.kept][k][:t.size(l, k)], nil
	case l < t.first():
		return nil, nil
	}
	p := t.find(t.number(l, k))
	if err := p.wait(); err != nil {
		return nil, err
	}
	return kernel.Floats(p.buf)[:t.size(l, k)], nil
}

// used says that the record that get returned is not needed any more.
func (t *tape) used(l, k int) {
	if t.onDisk(l) {
		p := t.find(t.number(l, k))
		p.holds, p.taken = -1, false
		t.readAhead()
	}
}
