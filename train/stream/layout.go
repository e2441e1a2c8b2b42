package stream

import (
	"fmt"
	"slices"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/tensor"
)

const (
	// page is what offsets, lengths and addresses of unbuffered reads are multiples of.
	page = 4096

	// straightLeast is the size from which on a tensor is worth a place where its
	// bytes can be read to without a copy.
	straightLeast = 64 << 10

	// openedBytes bounds what an opened tensor takes beside its stored bytes: its
	// description and, of NF4 with double quantization, the 8-bit map and the offset,
	// 2 KiB. Scales are decoded where they are used.
	openedBytes = 4 << 10
)

// layout says where in a slot the tensors of a block are.
type layout struct {
	places  []place
	index   map[string]int // of places, by name
	experts map[int][]int  // of places, by expert

	room   int64 // of all places
	floats int   // of all vectors
	stored int64 // bytes, without the experts'
}

// place is where a tensor of a block is.
type place struct {
	info   tensor.Info
	expert int   // -1 for what is no expert's
	at     int64 // in the slot
	floats int   // of a vector: where its numbers are among those of the slot
}

// roomOf returns the memory that stored bytes are given. If they are many, they can
// begin at any byte of the first page.
func roomOf(size int64) int64 {
	if size < straightLeast {
		return size
	}
	return size + page - 1
}

func (l *layout) add(info tensor.Info, expert int) {
	step := int64(64)
	if info.Size() >= straightLeast {
		step = page
	}
	at := roundUp(l.room, step)
	l.room = at + roomOf(info.Size())
	l.index[info.Name] = len(l.places)
	l.places = append(l.places, place{info, expert, at, l.floats})
	if len(info.Shape) == 1 {
		l.floats += int(info.Shape[0])
	}
	if expert >= 0 {
		l.experts[expert] = append(l.experts[expert], len(l.places)-1)
	} else {
		l.stored += info.Size()
	}
}

func roundUp(n, step int64) int64 { return (n + step - 1) &^ (step - 1) }

// layoutOf lays out a block of m, without the tensors that are skipped.
func layoutOf(src tensor.Source, m *arch.Model, block int, skip func(string) bool) (*layout, error) {
	l := &layout{index: make(map[string]int), experts: make(map[int][]int)}
	for _, t := range m.Block(block) {
		if skip != nil && skip(t.Name) {
			continue
		}
		info, err := infoOf(src, m, t)
		if err != nil {
			return nil, err
		}
		l.add(info, t.Expert)
	}
	return l, nil
}

// infoOf returns how src has a tensor of m.
func infoOf(src tensor.Source, m *arch.Model, t arch.Tensor) (tensor.Info, error) {
	info, err := src.Info(t.Name)
	if err != nil {
		return info, fmt.Errorf("%w: the %s family needs it", err, m.Name)
	}
	if !slices.Equal(info.Shape, t.Dims) {
		return info, fmt.Errorf("tensor %q: %w: shape %v, config.json makes it %v", t.Name, tensor.ErrMalformed, info.Shape, tensor.Shape(t.Dims))
	}
	return info, nil
}

// Sizes are how much memory a Stream takes and how much it reads, from shapes alone.
type Sizes struct {
	// Slot is the memory of one slot, where the largest block fits, its experts
	// included.
	Slot int64

	// Blocks are the stored bytes of each block without its experts; Experts those of
	// one expert of each block, 0 where there is none.
	Blocks, Experts []int64

	// Head is the stored bytes of the matrix that makes logits.
	Head int64

	// Rest is the memory of what is there whatever the Options are: the vectors
	// outside the blocks, and what the readers read through.
	Rest int64

	head tensor.Info
}

// NewSizes returns the sizes of a Stream over m as src has it. skip is that of the
// Options.
func NewSizes(src tensor.Source, m *arch.Model, skip func(name string) bool) (*Sizes, error) {
	z := &Sizes{Rest: readers * windowBytes}
	var room, floats, tensors int64
	for b := range int(m.NumHiddenLayers) {
		l, err := layoutOf(src, m, b, skip)
		if err != nil {
			return nil, err
		}
		room, floats, tensors = max(room, l.room), max(floats, int64(l.floats)), max(tensors, int64(len(l.places)))
		var expert int64
		for _, i := range l.experts[0] {
			expert += l.places[i].info.Size()
		}
		z.Blocks, z.Experts = append(z.Blocks, l.stored), append(z.Experts, expert)
	}
	z.Slot = roundUp(room, page) + 4*floats + tensors*openedBytes
	head := headOf(m)
	for _, t := range m.Tensors() {
		if t.Layer >= 0 || skip != nil && skip(t.Name) {
			continue
		}
		info, err := infoOf(src, m, t)
		if err != nil {
			return nil, err
		}
		if len(info.Shape) == 1 {
			z.Rest += 4 * info.Shape[0]
		} else if t.Name == head {
			z.Head, z.head = info.Size(), info
		}
	}
	return z, nil
}

// headOf returns the name of the matrix that makes logits.
func headOf(m *arch.Model) string {
	t, ok := m.Find(arch.Head, "weight", -1)
	if !ok {
		t, _ = m.Find(arch.Embedding, "weight", -1)
	}
	return t.Name
}

// HeadMemory returns the memory that the head takes: all of it, or what is read of it
// rows rows at a time.
func (z *Sizes) HeadMemory(resident bool, rows int) int64 {
	switch {
	case z.Head == 0: // it is trained, and somewhere else
		return 0
	case resident || !sectioned(z.head):
		return regionBytes(z.Head)
	}
	n := min(int64(rows), z.head.Shape[0])
	return sections * regionBytes(n*z.head.RowSize())
}

// regionBytes is the memory of a region for so many stored bytes.
func regionBytes(size int64) int64 { return roundUp(roomOf(size), page) + openedBytes }

// Memory returns the memory of a Stream with the given Options. Sections of the head
// have up to rows rows.
func (z *Sizes) Memory(o Options, rows int) int64 {
	n, _ := o.slots(len(z.Blocks))
	return int64(n)*z.Slot + z.HeadMemory(o.ResidentHead, rows) + z.Rest
}

// PassBytes returns the stored bytes that are read of blocks in a pass through all of
// them, forward or backward, where one follows the other in turn and the first is
// over. experts is how many experts of a block its tokens go through.
func (z *Sizes) PassBytes(o Options, experts int) int64 {
	n, pinned := o.slots(len(z.Blocks))
	var sum int64
	// What the slots hold at the end of a pass is where the next begins: at the last
	// blocks after a forward pass and, beside the pinned ones, at the first after a
	// backward one.
	for b := pinned; b < len(z.Blocks)-(n-pinned); b++ {
		sum += z.Blocks[b] + int64(experts)*z.Experts[b]
	}
	return sum
}
