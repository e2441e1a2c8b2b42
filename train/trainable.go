package train

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/optim"
	"github.com/seed18967229/nibble/train/stream"
)

// Start is what adapters begin from; the zero Start is what the settings say.
type Start struct {
	// Adapter has the first values, by the names that PEFT gives them. Tensors that it
	// has not begin as they would.
	Adapter tensor.Source

	// Subtract says that the product of what the adapters begin with is taken out of
	// the base, so that in the beginning the model computes what the base does.
	Subtract bool
}

// NewTrainable returns what a run of that configuration trains of the model,
// and the parameters of it in the model's order, none of which is in memory yet.
func NewTrainable(a *arch.Model, src tensor.Source, codecs tensor.Codecs, c *Config) (model.Trainable, []*optim.Param, error) {
	b := &builder{src: src, codecs: codecs, cfg: c, t: model.Trainable{Params: make(map[string]*optim.Param), Adapters: make(map[string]*model.Adapter)}}
	if c.Full() {
		err := b.full(a)
		return b.t, b.params, err
	}
	err := b.adapters(a)
	return b.t, b.params, err
}

// builder makes what is trained.
type builder struct {
	src    tensor.Source
	codecs tensor.Codecs
	cfg    *Config
	t      model.Trainable
	params []*optim.Param
}

func (b *builder) full(a *arch.Model) error {
	for _, x := range a.Tensors() {
		info, err := b.src.Info(x.Name)
		if err != nil {
			return err
		}
		if !info.DType.Float() {
			return hint.Add(fmt.Errorf("tensor %q: %w: full fine-tuning of %v weights", x.Name, tensor.ErrUnsupported, info.DType),
				"train an adapter (--fine-tune-type lora), or dequantize the model first")
		}
		if err := b.whole(x, x.Name); err != nil {
			return err
		}
	}
	return nil
}

// whole has a tensor trained itself, under that name.
func (b *builder) whole(x arch.Tensor, name string) error {
	info, err := b.src.Info(x.Name)
	if err != nil {
		return err
	}
	p := &optim.Param{Name: name, Shape: info.Shape, Layer: x.Layer, Decay: len(x.Dims) > 1, Embedding: x.Role == arch.Embedding || x.Role == arch.Position, Init: func(dst []float32) error {
		_, rows, err := b.codecs.OpenFrom(b.src, x.Name)
		if err != nil {
			return err
		}
		return rows.ReadRows(dst, 0)
	}}
	b.t.Params[x.Name] = p
	b.params = append(b.params, p)
	return nil
}

func (b *builder) adapters(a *arch.Model) error {
	got, err := b.cfg.choose(a)
	if err != nil {
		return err
	}
	adapted := make(map[string]bool) // modules
	for _, x := range got.adapted {
		adapted[x.Module()] = true
	}
	trained := make(map[string]bool)
	for _, x := range got.trained {
		trained[x.Name] = true
	}
	for _, x := range a.Tensors() {
		switch {
		case x.Part == "weight" && adapted[x.Module()]:
			rank, scale := got.of(x.Module())
			if err := b.adapter(x, rank, float32(scale)); err != nil {
				return err
			}
		case trained[x.Name]:
			name := x.Name
			if x.Part == "bias" && adapted[x.Module()] {
				name = x.Module() + ".base_layer.bias" // where PEFT has it
			}
			if err := b.whole(x, name); err != nil {
				return err
			}
		}
	}
	return b.start(a)
}

func (b *builder) adapter(x arch.Tensor, rank int, scale float32) error {
	c := b.cfg
	module := x.Module()
	var ad *model.Adapter
	switch {
	case x.Role == arch.Embedding:
		ad = model.NewEmbeddingAdapter(x, rank, scale, c.Seed)
	default:
		ad = model.NewAdapter(x, rank, scale, float32(c.Dropout), c.Seed)
		if c.InitLoRAWeights == "gaussian" {
			ad.Gaussian(module, c.Seed)
		}
	}
	if c.FineTuneType == dora {
		ad.Decompose(module, x.Transposed, func() (kernel.Matrix, error) { return b.matrix(b.src, x.Name) })
	}
	if _, principal := c.PiSSA(); principal {
		for _, p := range []*optim.Param{ad.A, ad.B} {
			p.Init = func([]float32) error {
				return fmt.Errorf("tensor %q: %w: the singular vectors it begins with", p.Name, tensor.ErrNotFound)
			}
		}
	}
	if c.Start.Subtract {
		first := &model.Pair{}
		var err error
		if first.A, err = b.matrix(c.Start.Adapter, ad.A.Name); err != nil {
			return err
		}
		if first.B, err = b.matrix(c.Start.Adapter, ad.B.Name); err != nil {
			return err
		}
		ad.Initial = first
	}
	if c.LoRADType == "bf16" {
		for _, p := range []*optim.Param{ad.A, ad.B} {
			p.DType = tensor.BF16
		}
	}
	b.t.Adapters[module] = ad
	b.params = append(b.params, ad.Params()...)
	return nil
}

// matrix returns a matrix that is read as it is used.
func (b *builder) matrix(src tensor.Source, name string) (kernel.Matrix, error) {
	info, rows, err := b.codecs.OpenFrom(src, name)
	if err != nil {
		return nil, err
	}
	return stream.MatrixOf(rows, info.Shape), nil
}

// start has parameters begin with what the start has of them, and all in the type that
// they are to have.
func (b *builder) start(a *arch.Model) error {
	from := b.cfg.Start.Adapter
	used := make(map[string]bool)
	for _, p := range b.params {
		if from != nil && tensor.Has(from, p.Name) {
			used[p.Name] = true
			if err := b.startFrom(p, from); err != nil {
				return err
			}
		}
		if init := p.Init; p.DType == tensor.BF16 {
			p.Init = func(dst []float32) error {
				err := init(dst)
				kernel.RoundBF16(dst)
				return err
			}
		}
	}
	if from == nil {
		return nil
	}
	for info := range from.All() {
		if used[info.Name] {
			continue
		}
		copied, err := b.copied(a, info.Name)
		if err != nil {
			return err
		}
		if !copied {
			return hint.Add(fmt.Errorf("adapter tensor %q: %w: nothing that is trained has that name", info.Name, tensor.ErrMalformed),
				"was the adapter trained on another model?")
		}
	}
	for module, ad := range b.t.Adapters {
		if used[ad.A.Name] != used[ad.B.Name] || !used[ad.A.Name] || ad.Magnitude != nil && !used[ad.Magnitude.Name] && !b.cfg.Start.Subtract {
			return fmt.Errorf("module %q: %w: the adapter to go on from has not all of it", module, tensor.ErrMalformed)
		}
	}
	return nil
}

// startFrom has a parameter begin as the tensor of its name.
func (b *builder) startFrom(p *optim.Param, from tensor.Source) error {
	info, err := from.Info(p.Name)
	if err != nil {
		return err
	}
	if !info.Shape.Equal(p.Shape) {
		return hint.Add(fmt.Errorf("adapter tensor %q: %w: its shape is %v, and %v is trained", p.Name, tensor.ErrMalformed, info.Shape, p.Shape),
			"was the adapter trained on another model?")
	}
	p.Init = func(dst []float32) error {
		_, rows, err := b.codecs.OpenFrom(from, p.Name)
		if err != nil {
			return err
		}
		return rows.ReadRows(dst, 0)
	}
	return nil
}

// copied reports whether a tensor of the start is a copy of what is there without it, as
// PEFT stores of embeddings: under their adapter, and of a head that is tied to them.
func (b *builder) copied(a *arch.Model, name string) (bool, error) {
	from := b.cfg.Start.Adapter
	if base := strings.Replace(name, ".base_layer.weight", ".weight", 1); base != name && tensor.Has(b.src, base) {
		return b.same(from, name, b.src, base)
	}
	if embedding := a.NameOf(arch.Embedding); a.TieWordEmbeddings && name == a.NameOf(arch.Head) && tensor.Has(from, embedding) {
		return b.same(from, name, from, embedding)
	}
	return false, nil
}

// sameAtOnce is how many elements are compared at a time, at least.
const sameAtOnce = 1 << 16

// same reports whether two tensors have the same elements.
func (b *builder) same(xs tensor.Source, x string, ys tensor.Source, y string) (bool, error) {
	info, xrows, err := b.codecs.OpenFrom(xs, x)
	if err != nil {
		return false, err
	}
	other, yrows, err := b.codecs.OpenFrom(ys, y)
	if err != nil || !info.Shape.Equal(other.Shape) {
		return false, err
	}
	rows, cols := info.Shape.Rows(), info.Shape.Cols()
	atOnce := min(rows, 1+sameAtOnce/max(1, cols))
	p, q := make([]float32, atOnce*cols), make([]float32, atOnce*cols)
	for row := int64(0); row < rows; row += atOnce {
		n := min(atOnce, rows-row) * cols
		if err := errors.Join(xrows.ReadRows(p[:n], row), yrows.ReadRows(q[:n], row)); err != nil {
			return false, err
		}
		if !slices.Equal(p[:n], q[:n]) {
			return false, nil
		}
	}
	return true, nil
}
