package merge

import (
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Arithmetic says where sums are rounded.
type Arithmetic uint8

const (
	// Once adds up everything in float32 and rounds once, to what is written.
	Once Arithmetic = iota

	// PEFT rounds where PEFT does in merge(): to the type of the weight after
	// each adapter, and the delta before it if it is that of an embedding or of
	// experts.
	PEFT

	// PEFTSafe rounds where PEFT does in merge(safe_merge=True): every delta
	// before, the weight after.
	PEFTSafe
)

// rounded is a sum with one delta as PEFT does it in the type of the weight.
type rounded struct {
	delta Delta
	to    tensor.DType

	// early says that the delta is rounded before it is added.
	early bool

	scratch sync.Pool // *[]float32
}

// Target implements Change.
func (r *rounded) Target() string { return r.delta.Target() }

// Apply implements Change.
func (r *rounded) Apply(w []float32, row int64) error {
	if !r.early {
		if err := r.delta.AddRows(w, row, 1); err != nil {
			return err
		}
		round(w, r.to)
		return nil
	}
	buf, _ := r.scratch.Get().(*[]float32)
	if buf == nil || cap(*buf) < len(w) {
		b := make([]float32, len(w))
		buf = &b
	}
	defer r.scratch.Put(buf)
	delta := (*buf)[:len(w)]
	clear(delta)
	if err := r.delta.AddRows(delta, row, 1); err != nil {
		return err
	}
	round(delta, r.to)
	kernel.Add(w, delta)
	round(w, r.to)
	return nil
}

// round rounds to what a type can hold; any but the half-precision ones is taken
// for F32.
func round(x []float32, to tensor.DType) {
	switch to {
	case tensor.BF16:
		kernel.RoundBF16(x)
	case tensor.F16:
		var half [2 * 1024]byte
		for len(x) > 0 {
			n := min(len(x), len(half)/2)
			kernel.EncodeF16(half[:2*n], x[:n])
			kernel.DecodeF16(x[:n], half[:2*n])
			x = x[n:]
		}
	}
}
