package merge

import (
	"bytes"
	"math"
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// An Account says how much the changes of a view amount to.
type Account struct{ meters []*meter }

// A TensorAccount says what was done to a tensor.
type TensorAccount struct {
	Name string

	// Norm is the Frobenius norm of the base's tensor, Delta that of what was
	// added to it.
	Norm, Delta float64

	// Changed says that something else is stored than without the change: a small
	// one can vanish when it is rounded.
	Changed bool
}

// Relative returns the norm of the change relative to that of the tensor.
func (t TensorAccount) Relative() float64 {
	if t.Delta == 0 {
		return 0
	}
	return t.Delta / t.Norm
}

// Tensors returns what was done to each tensor that has a change and has been
// read to the end, in the order of the base.
func (a *Account) Tensors() []TensorAccount {
	var out []TensorAccount
	for _, m := range a.meters {
		if t, ok := m.result(); ok {
			out = append(out, t)
		}
	}
	return out
}

// meter applies a change and measures it.
type meter struct {
	info   tensor.Info
	change Change
	enc    tensor.Encoder

	// product returns the square of the norm of a sum of low-rank deltas, which
	// costs less than to look at what they add; nil if the change is none.
	product func() (float64, error)

	mu      sync.Mutex
	rows    []rowSums // until all are there
	left    int64
	changed bool
	done    *TensorAccount

	scratch sync.Pool // *[]float32
}

// rowSums are the sums of squares of a row and of what is added to it.
type rowSums struct {
	seen        bool
	base, delta float64
}

func newMeter(info tensor.Info, c Change, enc tensor.Encoder) *meter {
	m := &meter{info: info, change: c, enc: enc, left: info.Shape.Rows()}
	if list := lowRanks(c); list != nil {
		m.product = sync.OnceValues(func() (float64, error) { return productNorm(list) })
	}
	return m
}

// lowRanks returns the deltas of a change that is a sum of low-rank ones, nil for
// any other.
func lowRanks(c Change) []LowRank {
	s, ok := c.(*sum)
	if !ok {
		return nil
	}
	var list []LowRank
	ranks := 0
	for _, d := range s.deltas {
		l, ok := d.(*lowRank)
		if !ok {
			return nil
		}
		if ranks += l.rank; ranks > 1024 || ranks > min(l.rows, l.cols) {
			return nil
		}
		list = append(list, l)
	}
	return list
}

// apply makes the change.
func (m *meter) apply(w []float32, row int64) error {
	cols := int(m.info.Shape.Cols())
	sums := make([]rowSums, len(w)/cols)
	if err := eachRow(m.info, w, row, "the base", func(r int64, squares float64) { sums[r-row].base = squares }); err != nil {
		return err
	}
	m.mu.Lock()
	changed := m.changed
	m.mu.Unlock()
	var was []float32
	if m.product == nil || !changed {
		buf, _ := m.scratch.Get().(*[]float32)
		if buf == nil || cap(*buf) < len(w) {
			b := make([]float32, len(w))
			buf = &b
		}
		defer m.scratch.Put(buf)
		was = (*buf)[:len(w)]
		copy(was, w)
	}
	if err := m.change.Apply(w, row); err != nil {
		return err
	}
	for i := range sums {
		x := w[i*cols:][:cols]
		squares := kernel.SumSquares(x)
		if err := finite(m.info, x, row+int64(i), squares, "the sum of base and adapter"); err != nil {
			return err
		}
		if err := overflow(m.info, m.enc.DType(), x, row+int64(i), squares); err != nil {
			return err
		}
		if was == nil {
			continue
		}
		changed = changed || m.differ(was[i*cols:][:cols], x)
		if m.product == nil {
			kernel.AddScaled(was[i*cols:][:cols], -1, x)
			sums[i].delta = kernel.SumSquares(was[i*cols:][:cols])
		}
	}
	return m.count(sums, row, changed)
}

// differ reports whether two rows are stored differently.
func (m *meter) differ(a, b []float32) bool {
	block, size := m.enc.DType().Block()
	n := int64(len(a)) / block * size
	stored := make([]byte, 2*n)
	m.enc.Encode(stored[:n], a)
	m.enc.Encode(stored[n:], b)
	return !bytes.Equal(stored[:n], stored[n:])
}

// count notes the sums of rows. Those that are read again count once.
func (m *meter) count(sums []rowSums, row int64, changed bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = m.changed || changed
	if m.done != nil {
		return nil
	}
	if m.rows == nil {
		m.rows = make([]rowSums, m.info.Shape.Rows())
	}
	for i, s := range sums {
		if at := &m.rows[int(row)+i]; !at.seen {
			s.seen = true
			*at = s
			m.left--
		}
	}
	if m.left > 0 {
		return nil
	}
	var base, delta float64
	for _, s := range m.rows {
		base, delta = base+s.base, delta+s.delta
	}
	m.rows = nil
	if m.product != nil {
		var err error
		if delta, err = m.product(); err != nil {
			return err
		}
	}
	m.done = &TensorAccount{Name: m.info.Name, Norm: math.Sqrt(base), Delta: math.Sqrt(max(0, delta))}
	return nil
}

func (m *meter) result() (TensorAccount, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done == nil {
		return TensorAccount{}, false
	}
	t := *m.done
	t.Changed = m.changed
	return t, true
}

// productNorm returns the square of the norm of a sum of products B·A: that is the
// sum, over all pairs of them, of the elements of BᵢᵀBⱼ times those of AᵢAⱼᵀ.
func productNorm(list []LowRank) (float64, error) {
	type part struct {
		b, a  []float32 // with rank rows each
		rank  int
		scale float64
	}
	var parts []part
	for _, l := range list {
		b, a, rank, scale, err := l.Factors()
		if err != nil {
			return 0, err
		}
		parts = append(parts, part{kernel.Transposed(b, len(b)/rank, rank), a, rank, float64(scale)})
	}
	var total float64
	for i, p := range parts {
		for j, q := range parts[i:] {
			inner := func(x, y []float32) ([]float32, error) {
				out := make([]float32, p.rank*q.rank)
				return out, kernel.MulT(out, x, p.rank, kernel.Dense{Data: y, Rows: q.rank, Cols: len(y) / q.rank}, false)
			}
			bb, err := inner(p.b, q.b)
			if err != nil {
				return 0, err
			}
			aa, err := inner(p.a, q.a)
			if err != nil {
				return 0, err
			}
			var dot float64
			for k, v := range bb {
				dot += float64(v) * float64(aa[k])
			}
			dot *= p.scale * q.scale
			if j > 0 {
				dot *= 2 // i with j, and j with i
			}
			total += dot
		}
	}
	return total, nil
}
