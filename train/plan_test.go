package train

import (
	"bytes"
	"context"
	"io"
	"math"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/speed"
	"github.com/seed18967229/nibble/tensor"
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

// shaped is LLaMA-7B in BF16, of which there is nothing but shapes.
func shaped(t *testing.T) Base {
	a, err := arch.ParseConfig([]byte(`{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
		"num_attention_heads": 32, "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6}`))
	require.NoError(t, err)
	var entries []tensor.Entry
	for _, x := range a.Tensors() {
		info := tensor.Info{Name: x.Name, DType: tensor.BF16, Shape: x.Dims}
		entries = append(entries, tensor.Entry{Info: info, Open: func() (io.ReaderAt, error) { return bytes.NewReader(nil), nil }})
	}
	src, err := tensor.NewTable(nil, entries)
	require.NoError(t, err)
	return Base{Arch: a, Source: src, Codecs: codecs}
}

// As the budget shrinks, what was in memory goes to disk and, where there is no room
// either, is computed twice; and every plan keeps to it.
func TestPlanChooses(t *testing.T) {
	base := shaped(t)
	cfg := DefaultConfig()
	cfg.BatchSize, cfg.MaxSeqLength = 1, 513
	plan := func(memory, disk int64) *Plan {
		p, err := NewPlan(base, &cfg, 513, Resources{Memory: memory, Cache: math.MaxInt64, Fill: true, Disk: disk, Scratch: t.TempDir()})
		require.NoError(t, err)
		require.LessOrEqual(t, p.Total, memory)
		require.LessOrEqual(t, p.Disk, disk)
		require.NotEmpty(t, p.Notes)
		return p
	}
	const gib, much = 1 << 30, 1 << 40
	all := plan(64*gib, much)
	require.Equal(t, []int{32, 32, 0}, []int{all.Slots, all.Kept, all.Spilled})
	require.False(t, all.PagedParams || all.PagedBounds)
	require.True(t, all.ResidentHead)
	require.Zero(t, all.Disk)

	some := plan(4*gib, much)
	require.Positive(t, some.Kept+some.Spilled)
	require.Less(t, some.Kept, 32)
	require.Equal(t, 32, some.Kept+some.Spilled)
	require.False(t, some.PagedParams)

	little := plan(gib*3/2, much)
	require.True(t, little.PagedParams)
	require.Equal(t, 32, little.Kept+little.Spilled)
	require.Less(t, little.Kept, some.Kept+1)

	without := plan(4*gib, 1<<20)
	require.Zero(t, without.Spilled)
	require.Less(t, without.Kept, 32)
	require.Greater(t, without.Operations, some.Operations, "what is not kept is computed again")

	part := plan(2*gib, gib)
	require.Positive(t, part.Spilled)
	require.Less(t, part.Kept+part.Spilled, 32)

	slow := Resources{Memory: 4 * gib, Disk: much, Scratch: t.TempDir(), Speed: speed.Probe{Product: 1e13, Read: 1e9, Write: 1e7}}
	p, err := NewPlan(base, &cfg, 513, slow)
	require.NoError(t, err)
	require.Zero(t, p.Spilled, "a disk that is slower than computing again")
	require.Positive(t, p.Seconds)

	_, err = NewPlan(base, &cfg, 513, Resources{Memory: 100 << 20, Disk: much})
	require.ErrorContains(t, err, "over the budget of 100.00 MiB")
	least, err := memory.ParseSize(regexp.MustCompile(`--memory (\w+)`).FindStringSubmatch(hint.Of(err))[1])
	require.NoError(t, err)
	plan(least, much)
}

// Blocks of the base stay in memory as far as is said, whatever room there is.
func TestPlanCaches(t *testing.T) {
	base := shaped(t)
	cfg := DefaultConfig()
	cfg.BatchSize, cfg.MaxSeqLength = 1, 513
	for cache, most := range map[int64]int{0: 0, 1 << 30: 2, math.MaxInt64: 29} {
		for _, fill := range []bool{false, true} {
			// So slow a disk that it would pay.
			p, err := NewPlan(base, &cfg, 513, Resources{Memory: 64 << 30, Cache: cache, Fill: fill, Scratch: t.TempDir(), Speed: speed.Probe{Read: 1e6}})
			require.NoError(t, err)
			require.LessOrEqual(t, p.Pinned, most)
			require.Equal(t, p.Slots, 3+p.Pinned)
			if fill {
				require.Equal(t, most, p.Pinned)
			}
		}
	}
}
