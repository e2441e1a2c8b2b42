package pipeline

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// NonFinite is what a run that quantizes does with weights that are NaN or
// infinite: one of them would spoil the block it is in. nil and the zero value
// stop the run at the first. It is safe for concurrent use.
type NonFinite struct {
	// AsZero makes them 0 and counts them.
	AsZero bool

	mu     sync.Mutex
	zeroed map[string]int64 // by tensor
}

// Check goes through a panel of the named tensor before it is quantized; first
// is the number, in row-major order, of the panel's first element. It returns a
// *tensor.NonFiniteError, or makes 0 in place what is not finite.
func (p *NonFinite) Check(name string, w []float32, first int64) error {
	if finite(kernel.Absmax(w)) {
		return nil
	}
	var n int64
	for i, v := range w {
		if finite(v) {
			continue
		}
		if p == nil || !p.AsZero {
			return hint.Add(&tensor.NonFiniteError{Index: first + int64(i), Value: v},
				"the checkpoint is damaged or its training diverged; with --nan-as-zero such elements become 0")
		}
		w[i] = 0
		n++
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.zeroed == nil {
		p.zeroed = make(map[string]int64)
	}
	p.zeroed[name] += n
	return nil
}

func finite(v float32) bool { return math.Float32bits(v)&^(1<<31) < 0x7f800000 }

// shown is how many tensors Notes names.
const shown = 8

// Notes says of the tensors that had such elements how many became 0, those with
// the most first.
func (p *NonFinite) Notes() []string {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(p.zeroed), func(a, b string) int {
		return cmp.Or(cmp.Compare(p.zeroed[b], p.zeroed[a]), cmp.Compare(a, b))
	})
	var notes []string
	for _, name := range names[:min(shown, len(names))] {
		notes = append(notes, fmt.Sprintf("%s: %d elements that are NaN or infinite became 0", name, p.zeroed[name]))
	}
	if more := len(names) - len(notes); more > 0 {
		var n int64
		for _, name := range names[shown:] {
			n += p.zeroed[name]
		}
		notes = append(notes, fmt.Sprintf("%d more tensors: %d elements that are NaN or infinite became 0", more, n))
	}
	return notes
}
