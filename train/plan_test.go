package train

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
)

func TestPlan(t *testing.T) {
	base, _ := tiny(t)
	cfg := tinyConfig()
	p, err := NewPlan(base, &cfg, 11, Resources{})
	require.NoError(t, err)
	var sum int64
	for _, l := range p.Lines {
		sum += l.Bytes
	}
	require.Equal(t, p.Total, sum)
	require.Equal(t, 3, p.Slots)
	require.Equal(t, base.Arch.NumParams(), p.Params)

	_, params, err := NewTrainable(base.Arch, base.Source, codecs, &cfg)
	require.NoError(t, err)
	var n int64
	for _, x := range params {
		n += x.Shape.Elems()
	}
	require.Equal(t, n, p.Trainable, "the plan counts what is trained")

	full := cfg
	full.FineTuneType = "full"
	fp, err := NewPlan(base, &full, 11, Resources{})
	require.NoError(t, err)
	require.Equal(t, base.Arch.NumParams(), fp.Trainable)

	// Longer examples and more of them need more, the length being what
	// --max-seq-length cuts them to.
	longer, err := NewPlan(base, &cfg, 16, Resources{})
	require.NoError(t, err)
	require.Greater(t, longer.Total, p.Total)
	cut, err := NewPlan(base, &cfg, 1000, Resources{})
	require.NoError(t, err)
	require.Equal(t, longer.Total, cut.Total)
}

func TestPlanKeepsToTheBudget(t *testing.T) {
	base, list := tiny(t)
	cfg := tinyConfig()
	free, err := NewPlan(base, &cfg, 11, Resources{})
	require.NoError(t, err)

	_, err = NewPlan(base, &cfg, 11, Resources{Memory: 1 << 20})
	require.ErrorContains(t, err, "over the budget of 1.00 MiB")
	require.Contains(t, hint.Of(err), "--memory ")

	for _, budget := range []int64{free.Total, free.Total + 1<<30} {
		p, err := NewPlan(base, &cfg, 11, Resources{Memory: budget})
		require.NoError(t, err)
		require.LessOrEqual(t, p.Total, budget)
		require.LessOrEqual(t, p.Slots, 3)
		r, err := New(base, cfg, list, nil, p, &kept{})
		require.NoError(t, err)
		_, err = r.Train(context.Background())
		require.NoError(t, err)
		r.Close()
	}
}
