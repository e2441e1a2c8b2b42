package train

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/lowrank"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/stream"
)

// Principal makes the adapters that PiSSA begins with (arXiv 2404.02948): for each
// module the product nearest to its weight, Scale·B·A, of the adapter's rank. They are
// the Start of the run, with Subtract, so that the base stays as it is on disk.
type Principal struct {
	base   Base
	cfg    *Config
	rounds int
	chosen *chosen
}

// NewPrincipal returns what makes the initial adapters of a run with PiSSA.
func NewPrincipal(base Base, cfg *Config) (*Principal, error) {
	p := &Principal{base: base, cfg: cfg}
	p.rounds, _ = cfg.PiSSA()
	var err error
	p.chosen, err = cfg.choose(base.Arch)
	return p, err
}

// Layout returns what tensors there will be.
func (p *Principal) Layout() []tensor.Info {
	var out []tensor.Info
	for _, x := range p.chosen.adapted {
		rank, _ := p.chosen.of(x.Module())
		out = append(out,
			tensor.Info{Name: x.Module() + ".lora_A.weight", DType: tensor.F32, Shape: tensor.Shape{int64(rank), int64(x.In())}},
			tensor.Info{Name: x.Module() + ".lora_B.weight", DType: tensor.F32, Shape: tensor.Shape{int64(x.Out()), int64(rank)}})
	}
	return out
}

// Memory returns how many bytes making them takes, one after the other.
func (p *Principal) Memory() int64 {
	var most int64
	for _, x := range p.chosen.adapted {
		rank, _ := p.chosen.of(x.Module())
		size := int64(4*rank) * (x.Dims[0] + x.Dims[1])
		if info, err := p.base.Source.Info(x.Name); err == nil {
			size += info.Size()
		}
		most = max(most, size+lowrank.Memory(int(x.Dims[0]), int(x.Dims[1]), rank))
	}
	return most
}

// Make gives store the tensors of Layout, in its order.
func (p *Principal) Make(ctx context.Context, store func(name string, values []float32) error) error {
	for _, x := range p.chosen.adapted {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		a, b, err := p.factors(x)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", x.Name, err)
		}
		for _, one := range []struct {
			name   string
			values []float32
		}{{x.Module() + ".lora_A.weight", a}, {x.Module() + ".lora_B.weight", b}} {
			if loraDTypes[p.cfg.LoRADType] == tensor.BF16 {
				kernel.RoundBF16(one.values)
			}
			if err := store(one.name, one.values); err != nil {
				return err
			}
		}
	}
	return nil
}

// factors decomposes one weight, which is in memory as it is stored.
func (p *Principal) factors(x arch.Tensor) (a, b []float32, err error) {
	info, err := p.base.Source.Info(x.Name)
	if err != nil {
		return nil, nil, err
	}
	r, err := p.base.Source.Raw(x.Name)
	if err != nil {
		return nil, nil, err
	}
	raw := make([]byte, r.Size())
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, nil, err
	}
	rows, err := p.base.Codecs.Open(info, tensor.Memory(raw))
	if err != nil {
		return nil, nil, err
	}
	w := stream.MatrixOf(rows, info.Shape)
	rank, scale := p.chosen.of(x.Module())
	var f *lowrank.Factors
	if p.rounds > 0 {
		f, err = lowrank.TruncateIn(w, rank, p.rounds, p.cfg.Seed)
	} else {
		f, err = lowrank.Truncate(w, rank, p.cfg.Seed)
	}
	if err != nil {
		return nil, nil, err
	}
	a, b = f.A, f.B
	if x.Transposed {
		in, out := x.In(), x.Out()
		a, b = kernel.Transposed(f.B, in, rank), kernel.Transposed(f.A, rank, out)
	}
	for _, values := range [][]float32{a, b} {
		if slices.ContainsFunc(values, func(v float32) bool { return v-v != 0 }) {
			return nil, nil, fmt.Errorf("%w: it has no singular values, as not all of it is finite", tensor.ErrMalformed)
		}
		kernel.Scale(values, float32(1/math.Sqrt(scale)))
	}
	return a, b, nil
}
