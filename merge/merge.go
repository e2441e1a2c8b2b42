package merge

import (
	"math"

	"github.com/seed18967229/nibble/tensor"
)

// Config is what an adapter's arithmetic depends on, whatever file it was
// written in, and what has to be known of the base.
type Config struct {
	// Rank and Alpha give the scale alpha/rank, or alpha/sqrt(rank) if
	// UseRSLoRA is set (Kalajdzievski, 2023).
	Rank      int
	Alpha     float64
	UseRSLoRA bool

	// Pattern returns the rank and the alpha of a module, or of a parameter, if
	// they differ from module to module; it may be nil.
	Pattern func(name string) (rank int, alpha float64)

	// FanInFanOut says that the base stores weights as [in, out], as GPT-2's
	// Conv1D does. Transposed says it of one tensor, and counts where it is known.
	FanInFanOut bool
	Transposed  func(tensor string) bool

	// DoRA says that there are magnitudes, LoRABias that biases have deltas.
	DoRA, LoRABias bool

	// Saved names the modules that are trained whole, Bias those of which the
	// bias is: "none", "all" or "lora_only".
	Saved []string
	Bias  string

	// Tokens are the rows of embeddings that the adapter replaces.
	Tokens []Tokens

	// Parameters names the tensors that have deltas without being a layer's
	// weight: stacks of experts. Stacked returns of which tensors of the base one
	// consists, if it is not one itself: for each of the projections that lie one
	// after the other in it, those of the experts in order. It may be nil.
	Parameters []string
	Stacked    func(parameter string) [][]string

	// SwappedExperts says that the adapter is from PEFT 0.19 or later, where the
	// sides of a stack of experts change places; nil is that it is not known.
	SwappedExperts *bool

	// Replication makes the layers of the adapted model of those of the base:
	// those from the first number of each pair to before the second.
	Replication [][2]int64

	// Targeted reports whether the configuration means a module to have a pair;
	// nil if that is not known. Targets has the endings of names it goes by,
	// if it does.
	Targeted func(module string) bool
	Targets  []string

	// Embedding names the embedding of a base whose head is the same tensor, and
	// Head what the head would be called. Untie makes it a tensor of its own.
	// TiedAdapter says that the adapter of the embedding is that of the head too.
	Embedding, Head string
	Untie           bool
	TiedAdapter     bool

	// Initial holds what the pairs were before training, where the base was
	// changed so that they made no difference then (PiSSA and its like): the
	// adapter is the difference. It may be nil.
	Initial tensor.Source

	// Arithmetic says where sums are rounded. Held returns the type that the
	// tensor has in PEFT's memory; nil is its own, or F32 if that is no
	// floating-point type.
	Arithmetic Arithmetic
	Held       func(tensor.Info) tensor.DType
}

// Tokens are rows of the embedding that a module has.
type Tokens struct {
	Module string
	Rows   []int64
}

// Scale returns what the product of the low-rank matrices is multiplied by where
// no pattern says otherwise.
func (c Config) Scale() float64 { return c.scale(c.Rank, c.Alpha) }

func (c Config) scale(rank int, alpha float64) float64 {
	if c.UseRSLoRA {
		return alpha / math.Sqrt(float64(rank))
	}
	return alpha / float64(rank)
}

// of returns the rank and the scale of a module.
func (c Config) of(name string) (rank int, scale float64) {
	rank, alpha := c.Rank, c.Alpha
	if c.Pattern != nil {
		rank, alpha = c.Pattern(name)
	}
	return rank, c.scale(rank, alpha)
}

func (c Config) held(info tensor.Info) tensor.DType {
	switch {
	case c.Held != nil:
		return c.Held(info)
	case info.DType.Float():
		return info.DType
	}
	return tensor.F32
}

// A Method reads the adapters of one kind.
type Method interface {
	// Name is PEFT's peft_type in lower case.
	Name() string

	// Match returns what an adapter does to a base. It reads the adapter's
	// tensors and checks everything there is to check, of the base its headers
	// only: that every adapter tensor is used, that its target is there and that
	// the shapes fit. The adapter is read again when the changes are made, and
	// must stay open until then.
	Match(base, adapter tensor.Source, codecs tensor.Codecs, cfg Config) (*Effect, error)
}

// Methods returns every method there is.
func Methods() []Method { return []Method{LoRA{}} }
