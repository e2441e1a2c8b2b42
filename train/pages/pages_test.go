package pages

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/optim"
)

// model is parameters of five blocks, the fourth with none, and some outside.
func model() []*optim.Param {
	var list []*optim.Param
	add := func(name string, layer int, shape ...int64) {
		seed := uint64(len(list))
		list = append(list, &optim.Param{Name: name, Layer: layer, Shape: shape, Decay: len(shape) > 1, Init: func(dst []float32) error {
			rng := rand.New(rand.NewPCG(seed, 0))
			for i := range dst {
				dst[i] = float32(rng.NormFloat64())
			}
			return nil
		}})
	}
	add("embed", -1, 11, 7)
	for l := range 5 {
		if l == 3 {
			continue
		}
		add(fmt.Sprint("a", l), l, 70, 61)
		add(fmt.Sprint("norm", l), l, 7)
		if l%2 == 0 {
			add(fmt.Sprint("b", l), l, 3, 1000)
		}
	}
	add("final", -1, 7)
	return list
}

// train does steps of a stand-in for a run: gradients depend on values.
func train(t *testing.T, s *Store, opt optim.Optimizer, from, to int) (norms []float64) {
	t.Helper()
	ctx := context.Background()
	gradient := func(p *optim.Param, step int) {
		for i, v := range p.Data {
			p.Grad[i] += v*0.1 + float32(i*step%13-6)
		}
	}
	for step := from; step <= to; step++ {
		s.Begin()
		for l := range 5 {
			release, err := s.Lease(ctx, l, false, l+1, l+2)
			require.NoError(t, err)
			for _, p := range s.Params() {
				if p.Layer == l {
					require.Len(t, p.Data, int(p.Shape.Elems()))
				}
			}
			require.NoError(t, release())
		}
		for l := 4; l >= 0; l-- {
			release, err := s.Lease(ctx, l, true, l-1, l-2, 0)
			require.NoError(t, err)
			for _, p := range s.Params() {
				if p.Layer == l {
					require.Zero(t, kernel.SumSquares(p.Grad))
					gradient(p, step)
				}
			}
			require.NoError(t, release())
		}
		for _, p := range s.Params() {
			if p.Layer < 0 {
				require.Zero(t, kernel.SumSquares(p.Grad))
				gradient(p, step)
			}
		}
		norm, err := s.Norm()
		require.NoError(t, err)
		norms = append(norms, norm)
		require.NoError(t, s.Update(func(p *optim.Param, state [][]byte) error {
			opt.Step(step, 0.01, p, state)
			return nil
		}))
	}
	return norms
}

func all(t *testing.T, src tensor.Source) map[string][]byte {
	out := make(map[string][]byte)
	for info := range src.All() {
		out[info.Name] = tensortest.Bytes(t, src, info.Name)
	}
	return out
}

// What is paged and through how many buffers changes no bit, nor does going on from what
// was stored.
func TestPagedIsResident(t *testing.T) {
	for _, name := range optim.Names() {
		t.Run(name, func(t *testing.T) {
			opt, err := optim.New(name, optim.Options{WeightDecay: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Momentum: 0.9})
			require.NoError(t, err)
			resident, err := New(model(), opt, Options{})
			require.NoError(t, err)
			defer resident.Close()
			require.NoError(t, resident.Init())
			norms := train(t, resident, opt, 1, 4)
			require.Zero(t, resident.Stats())
			values, state := all(t, resident.Values()), all(t, resident.State())
			require.NotEmpty(t, state)
			tensortest.TestSource(t, resident.Values())

			for _, buffers := range []int{2, 3, 9} {
				dir := t.TempDir()
				paged, err := New(model(), opt, Options{Paged: true, Scratch: dir, Buffers: buffers})
				require.NoError(t, err)
				defer paged.Close()
				require.NoError(t, paged.Init())
				require.Equal(t, norms[:2], train(t, paged, opt, 1, 2))
				if buffers == 3 {
					tensortest.TestSource(t, paged.Values())
					tensortest.TestSource(t, paged.State())
				}
				for _, o := range []Options{{}, {Paged: true, Scratch: dir}} {
					again, err := New(model(), opt, o)
					require.NoError(t, err)
					require.NoError(t, again.Load(paged.Values(), paged.State()))
					require.Equal(t, norms[2:], train(t, again, opt, 3, 4))
					require.Equal(t, values, all(t, again.Values()))
					require.Equal(t, state, all(t, again.State()))
					again.Close()
				}
				require.Equal(t, norms[2:], train(t, paged, opt, 3, 4))
				require.Equal(t, values, all(t, paged.Values()))
				require.Equal(t, state, all(t, paged.State()))
				for _, p := range paged.Params() {
					require.Equal(t, p.Layer < 0, p.Data != nil)
				}
				paged.Close()
				entries, err := os.ReadDir(dir)
				require.NoError(t, err)
				require.Empty(t, entries)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	opt, err := optim.New("adamw", optim.DefaultOptions())
	require.NoError(t, err)
	a, err := New(model(), opt, Options{})
	require.NoError(t, err)
	require.NoError(t, a.Init())
	for _, o := range []Options{{}, {Paged: true, Scratch: t.TempDir()}} {
		s, err := New(model(), opt, o)
		require.NoError(t, err)
		defer s.Close()
		require.ErrorIs(t, s.Load(a.Values(), a.Values()), tensor.ErrNotFound, "a state that lacks a moment")
		require.ErrorIs(t, s.Load(a.State(), a.State()), tensor.ErrNotFound)
		params := model()
		params[1].Shape = tensor.Shape{61, 70}
		other, err := New(params, opt, o)
		require.NoError(t, err)
		defer other.Close()
		require.ErrorIs(t, other.Load(a.Values(), a.State()), tensor.ErrMalformed)
	}
}

func TestNotFinite(t *testing.T) {
	opt, err := optim.New("sgd", optim.DefaultOptions())
	require.NoError(t, err)
	for _, o := range []Options{{}, {Paged: true, Scratch: t.TempDir()}} {
		for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			s, err := New(model(), opt, o)
			require.NoError(t, err)
			defer s.Close()
			require.NoError(t, s.Init())
			s.Begin()
			release, err := s.Lease(context.Background(), 2, true)
			require.NoError(t, err)
			for _, p := range s.Params() {
				if p.Name == "b2" {
					p.Grad[1234] = float32(bad)
				}
			}
			err = release()
			require.ErrorIs(t, err, optim.ErrNotFinite)
			require.EqualError(t, err, "the gradient of b2 is not finite")

			s.Begin()
			s.Params()[0].Grad[3] = float32(bad)
			_, err = s.Norm()
			require.EqualError(t, err, "the gradient of embed is not finite")
		}
	}
}

func TestMeasure(t *testing.T) {
	params := model()
	for _, name := range optim.Names() {
		opt, err := optim.New(name, optim.DefaultOptions())
		require.NoError(t, err)
		for _, o := range []Options{{}, {Paged: true, Scratch: t.TempDir()}, {Paged: true, Scratch: t.TempDir(), Buffers: 2}} {
			m := Measure(params, opt, o)
			s, err := New(params, opt, o)
			require.NoError(t, err)
			defer s.Close()
			var memory int64
			for i, p := range params {
				memory += int64(4*len(p.Data)+4*len(p.Grad)) + s.places[i].state*int64(min(1, len(s.states[i])))
			}
			for _, p := range s.pages {
				memory += int64(len(p.buf))
			}
			require.InDelta(t, memory, m.Memory, 1<<13, "%s %+v", name, o)
			if o.Paged {
				require.Equal(t, s.file.Size(), m.Disk)
				require.Equal(t, len(s.pages), m.Buffers)
				require.NoError(t, s.Init())
				before := s.Stats()
				train(t, s, opt, 1, 1)
				after := s.Stats()
				moved := after.Read + after.Written - before.Read - before.Written
				require.LessOrEqual(t, moved, m.Moved+m.Page)
				require.Greater(t, moved, m.Moved*8/10)
			} else {
				require.Zero(t, m.Disk+m.Moved+m.Page)
			}
			for _, p := range params {
				p.Data, p.Grad = nil, nil
			}
		}
	}
}

func TestNoRoom(t *testing.T) {
	opt, err := optim.New("adamw", optim.DefaultOptions())
	require.NoError(t, err)
	_, err = New([]*optim.Param{{Name: "w", Shape: tensor.Shape{1 << 30, 1 << 20}}}, opt, Options{Paged: true, Scratch: t.TempDir()})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NotEmpty(t, hint.Of(err))
}
