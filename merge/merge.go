package merge

import (
	"math"

	"github.com/seed18967229/nibble/tensor"
)

// Config is what an adapter's arithmetic depends on, whatever file it was
// written in.
type Config struct {
	// Rank and Alpha give the scale alpha/rank, or alpha/sqrt(rank) if
	// UseRSLoRA is set (Kalajdzievski, 2023).
	Rank      int
	Alpha     float64
	UseRSLoRA bool

	// FanInFanOut says that the base stores weights as [in, out], as GPT-2's
	// Conv1D does.
	FanInFanOut bool
}

// Scale returns what the product of the low-rank matrices is multiplied by.
func (c Config) Scale() float64 {
	if c.UseRSLoRA {
		return c.Alpha / math.Sqrt(float64(c.Rank))
	}
	return c.Alpha / float64(c.Rank)
}

// A Method reads the adapters of one kind.
type Method interface {
	// Name is PEFT's peft_type in lower case.
	Name() string

	// Match returns what an adapter does to a base. It reads the adapter's
	// tensors and checks everything there is to check, of the base its headers
	// only: that every adapter tensor is used, that its target is there and that
	// the shapes fit.
	Match(base, adapter tensor.Source, codecs tensor.Codecs, cfg Config) (*Effect, error)
}

// An Effect is what an adapter does to a base.
type Effect struct {
	// Base is what the changes are done to: the base itself, unless the adapter
	// adds tensors to it or gives some another shape.
	Base tensor.Source

	// Changes has one change for each tensor that the adapter changes.
	Changes []Change

	// Notes say what whoever merges should know.
	Notes []string
}

// Methods returns every method there is.
func Methods() []Method { return []Method{LoRA{}} }
