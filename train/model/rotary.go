package model

import (
	"slices"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
)

// rotary turns queries and keys by their positions. The frequencies of longrope
// depend on how long the longest sequence of a batch is, as in transformers
// (dynamic_rope_update).
type rotary struct {
	usual *kernel.Rotation

	// long is of batches with a sequence of more than limit tokens; nil where all
	// are alike.
	long  *kernel.Rotation
	limit int
}

func newRotary(a *arch.Model, positions int, angles func(positions int) arch.Angles) *rotary {
	rotation := func(n int) *kernel.Rotation {
		x := angles(n)
		return kernel.NewRotation(positions, int(a.HeadDim), x.InvFreq, x.Scale, a.Rotary == arch.Interleaved)
	}
	r := &rotary{limit: positions}
	if a.Rope.Type == "longrope" {
		r.limit = int(a.Rope.OriginalMaxPositionEmbeddings)
	}
	r.usual = rotation(min(r.limit, positions))
	if positions > r.limit {
		r.long = rotation(positions)
	}
	return r
}

// of returns the rotation of a batch of sequences with these positions, or of a part of
// one that reaches a length.
func (r *rotary) of(pos []int32, reach int) *kernel.Rotation {
	if r.long != nil && (reach > r.limit || int(slices.Max(pos)) >= r.limit) {
		return r.long
	}
	return r.usual
}

// restarts reports whether a sequence that has n tokens in its cache must be computed
// again from its first token on when it becomes one of so many: its keys have been turned
// by other frequencies.
func (m *Model) restarts(n, all int) bool {
	r := m.rotate
	return r != nil && r.long != nil && 0 < n && n <= r.limit && all > r.limit
}
