package merge

import (
	"fmt"
	"slices"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// newPair checks a pair against its target and returns their delta.
func (m *matcher) newPair(p *pair, target string) (*lowRank, error) {
	w, err := m.base.Info(target)
	if err != nil {
		return nil, another(p.a, target)
	}
	a, b, err := m.pairInfos(p)
	if err != nil {
		return nil, err
	}
	rank, scale := m.cfg.of(p.module)
	if a.Shape[0] != b.Shape[1] {
		return nil, fmt.Errorf("adapter tensors %q and %q: %w: shapes %v and %v, want [rank, in] and [out, rank]",
			p.a, p.b, tensor.ErrMalformed, a.Shape, b.Shape)
	}
	if err := checkRank(p, a.Shape[0], int64(rank)); err != nil {
		return nil, err
	}
	across := p.embedding || m.transposed(target)
	fits := tensor.Shape{b.Shape[0], a.Shape[1]}
	if across {
		slices.Reverse(fits)
	}
	if !w.Shape.Equal(fits) {
		return nil, hint.Add(fmt.Errorf("adapter tensor %q: %w: the adapter is for a weight of %v, the base's %s has shape %v",
			p.a, tensor.ErrMalformed, fits, target, w.Shape),
			"was the adapter trained on another model?")
	}
	if err := m.checkInitialPair(p, a, b); err != nil {
		return nil, err
	}
	in, out := int(a.Shape[1]), int(b.Shape[0])
	d := &lowRank{
		target: target, rows: int(fits[0]), cols: int(fits[1]), rank: rank, scale: scale, cache: m.cache, across: across,
		zero: m.cfg.Initial == nil && (m.zero[p.a] || m.zero[p.b]),
	}
	if m.cfg.Initial != nil {
		d.rank *= 2
	}
	d.load = func() ([]float32, []float32, error) {
		fa, fb, err := m.readPair(p, rank, in, out)
		if err != nil || !across {
			return fb, fa, err
		}
		return kernel.Transposed(fa, d.rank, in), kernel.Transposed(fb, out, d.rank), nil
	}
	return d, nil
}

func (m *matcher) pairInfos(p *pair) (a, b tensor.Info, err error) {
	if a, err = m.adapter.Info(p.a); err != nil {
		return a, b, err
	}
	if b, err = m.adapter.Info(p.b); err != nil {
		return a, b, err
	}
	if len(a.Shape) != 2 || len(b.Shape) != 2 {
		kind := ""
		if len(a.Shape) > 2 {
			kind = "; adapters of convolutions are not merged"
		}
		return a, b, fmt.Errorf("adapter tensors %q and %q: %w: shapes %v and %v, want [rank, in] and [out, rank]%s",
			p.a, p.b, tensor.ErrMalformed, a.Shape, b.Shape, kind)
	}
	return a, b, nil
}

func checkRank(p *pair, has, want int64) error {
	if has == want {
		return nil
	}
	return hint.Add(fmt.Errorf("adapter tensor %q: %w: its rank is %d, the configuration says %d", p.a, tensor.ErrMalformed, has, want),
		"adapter_config.json does not belong to these tensors")
}

// transposed reports whether the base holds a weight as [in, out].
func (m *matcher) transposed(target string) bool {
	if m.cfg.Transposed != nil {
		return m.cfg.Transposed(target)
	}
	return m.cfg.FanInFanOut
}

// checkInitialPair checks that the adapter as it was before training has a pair
// of the same shapes.
func (m *matcher) checkInitialPair(p *pair, a, b tensor.Info) error {
	if m.cfg.Initial == nil {
		return nil
	}
	for _, info := range []tensor.Info{a, b} {
		was, err := m.cfg.Initial.Info(info.Name)
		if err != nil {
			return fmt.Errorf("the initial adapter: %w: it has no tensor %q", tensor.ErrMalformed, info.Name)
		}
		if !was.Shape.Equal(info.Shape) {
			return fmt.Errorf("the initial adapter's tensor %q: %w: its shape is %v, that of the adapter's %v", info.Name, tensor.ErrMalformed, was.Shape, info.Shape)
		}
	}
	return nil
}

// readPair reads both matrices. What an adapter has learned that began as another
// is B·A - B0·A0, the product of [B, -B0] and of A above A0.
func (m *matcher) readPair(p *pair, rank, in, out int) (a, b []float32, err error) {
	if _, a, err = m.codecs.ReadAll(m.adapter, p.a); err != nil {
		return nil, nil, err
	}
	if _, b, err = m.codecs.ReadAll(m.adapter, p.b); err != nil {
		return nil, nil, err
	}
	if m.cfg.Initial == nil {
		return a, b, nil
	}
	_, a0, err := m.codecs.ReadAll(m.cfg.Initial, p.a)
	if err != nil {
		return nil, nil, err
	}
	_, b0, err := m.codecs.ReadAll(m.cfg.Initial, p.b)
	if err != nil {
		return nil, nil, err
	}
	both := make([]float32, 0, 2*len(b))
	for i := range out {
		both = append(both, b[i*rank:][:rank]...)
		for _, v := range b0[i*rank:][:rank] {
			both = append(both, -v)
		}
	}
	return append(a, a0...), both, nil
}

// samePair reports whether the pair of a head adds what that of an embedding does.
func (m *matcher) samePair(embedding, head *pair) (bool, error) {
	for _, side := range [][2]string{{embedding.a, head.b}, {embedding.b, head.a}} {
		e, of, err := m.codecs.ReadAll(m.adapter, side[0])
		if err != nil {
			return false, err
		}
		h, is, err := m.codecs.ReadAll(m.adapter, side[1])
		if err != nil {
			return false, err
		}
		if len(e.Shape) != 2 || len(h.Shape) != 2 || e.Shape[0] != h.Shape[1] || e.Shape[1] != h.Shape[0] ||
			!slices.Equal(kernel.Transposed(of, int(e.Shape[0]), int(e.Shape[1])), is) {
			return false, nil
		}
	}
	return true, nil
}
