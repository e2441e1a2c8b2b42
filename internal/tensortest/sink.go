package tensortest

import (
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// Store is a place that a Sink writes to, for one run of the suite.
type Store struct {
	// Create starts writing.
	Create func() tensor.Sink

	// Open reads what was written and finished.
	Open func() tensor.Source

	// Files lists everything left in the place, temporary files included.
	Files func() []string

	// Late says that the format can hold late tensors.
	Late bool
}

// TestSink checks what every Sink promises. newStore returns an empty place
// each time; layout is a set of tensors that the format can hold.
func TestSink(t *testing.T, newStore func(t *testing.T) Store, meta tensor.Meta, layout []tensor.Info) {
	bodies := make([][]byte, len(layout))
	rng := rand.New(rand.NewPCG(1, 2))
	for i, info := range layout {
		bodies[i] = make([]byte, info.Size())
		for j := range bodies[i] {
			bodies[i][j] = byte(rng.Uint32())
		}
	}

	t.Run("round trip", func(t *testing.T) {
		s := newStore(t)
		write(t, s.Create(), meta, layout, bodies)
		src := s.Open()
		TestSource(t, src)
		for i, info := range layout {
			got, err := src.Info(info.Name)
			require.NoError(t, err)
			require.Equal(t, info, got)
			require.Equal(t, bodies[i], Bytes(t, src, info.Name), "%s", info.Name)
		}
		for _, kv := range meta {
			v, ok := src.Meta().Get(kv.Key)
			require.True(t, ok, "metadata %q is lost", kv.Key)
			require.Equal(t, kv.Value, v)
		}
	})

	t.Run("same bytes whatever the order of writing", func(t *testing.T) {
		a, b := newStore(t), newStore(t)
		write(t, a.Create(), meta, layout, bodies)
		sink := b.Create()
		require.NoError(t, sink.Begin(meta, layout))
		for i := range slices.Backward(layout) {
			w, err := sink.Body(i)
			require.NoError(t, err)
			for off := len(bodies[i]) - 1; off >= 0; off-- {
				_, err := w.WriteAt(bodies[i][off:off+1], int64(off))
				require.NoError(t, err)
			}
		}
		require.NoError(t, sink.Finish())
		sa, sb := a.Open(), b.Open()
		require.Equal(t, slices.Collect(sa.All()), slices.Collect(sb.All()))
		for i, info := range layout {
			require.Equal(t, bodies[i], Bytes(t, sb, info.Name))
		}
	})

	t.Run("abort leaves nothing", func(t *testing.T) {
		s := newStore(t)
		before := s.Files()
		sink := s.Create()
		require.NoError(t, sink.Begin(meta, layout))
		w, err := sink.Body(0)
		require.NoError(t, err)
		_, err = w.WriteAt(bodies[0][:1], 0)
		require.NoError(t, err)
		require.NoError(t, sink.Abort())
		require.Equal(t, before, s.Files())
		require.NoError(t, sink.Abort(), "a second Abort is a no-op")

		sink = s.Create()
		require.NoError(t, sink.Abort(), "Abort before Begin")
		require.Equal(t, before, s.Files())
	})

	t.Run("finish refuses a missing byte", func(t *testing.T) {
		s := newStore(t)
		before := s.Files()
		sink := s.Create()
		require.NoError(t, sink.Begin(meta, layout))
		for i := range layout {
			w, err := sink.Body(i)
			require.NoError(t, err)
			b := bodies[i]
			if i == len(layout)-1 {
				b = b[:len(b)-1]
			}
			_, err = w.WriteAt(b, 0)
			require.NoError(t, err)
		}
		err := sink.Finish()
		require.Error(t, err)
		require.Contains(t, err.Error(), layout[len(layout)-1].Name)
		require.Equal(t, before, s.Files())
	})

	t.Run("body refuses bytes outside", func(t *testing.T) {
		s := newStore(t)
		sink := s.Create()
		require.NoError(t, sink.Begin(meta, layout))
		defer sink.Abort()
		w, err := sink.Body(0)
		require.NoError(t, err)
		_, err = w.WriteAt([]byte{1}, layout[0].Size())
		require.Error(t, err)
		_, err = w.WriteAt([]byte{1}, -1)
		require.Error(t, err)
	})

	t.Run("one name twice", func(t *testing.T) {
		s := newStore(t)
		before := s.Files()
		sink := s.Create()
		require.Error(t, sink.Begin(meta, append(slices.Clone(layout), layout[0])))
		require.NoError(t, sink.Abort())
		require.Equal(t, before, s.Files())
	})

	t.Run("finish then abort keeps the output", func(t *testing.T) {
		s := newStore(t)
		sink := s.Create()
		write(t, sink, meta, layout, bodies)
		require.NoError(t, sink.Abort())
		TestSource(t, s.Open())
	})

	t.Run("late tensors", func(t *testing.T) {
		s := newStore(t)
		late := []tensor.Info{tensor.NewLate("late.a"), layout[0], tensor.NewLate("late.b")}
		sink := s.Create()
		err := sink.Begin(meta, late)
		if !s.Late {
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			require.NoError(t, sink.Abort())
			return
		}
		require.NoError(t, err)
		text := [][]byte{[]byte(`{"a": 1}`), bodies[0], []byte(`{"longer": 0.123456789}`)}
		for i := range late {
			w, err := sink.Body(i)
			require.NoError(t, err)
			half := len(text[i]) / 2
			_, err = w.WriteAt(text[i][half:], int64(half))
			require.NoError(t, err)
			_, err = w.WriteAt(text[i][:half], 0)
			require.NoError(t, err)
		}
		require.NoError(t, sink.Finish())
		src := s.Open()
		TestSource(t, src)
		for i, info := range late {
			got, err := src.Info(info.Name)
			require.NoError(t, err)
			require.Equal(t, int64(len(text[i])), got.Size())
			require.Equal(t, text[i], Bytes(t, src, info.Name))
		}
	})
}

func write(t *testing.T, sink tensor.Sink, meta tensor.Meta, layout []tensor.Info, bodies [][]byte) {
	t.Helper()
	require.NoError(t, sink.Begin(meta, layout))
	var wg sync.WaitGroup
	errs := make([]error, len(layout))
	for i := range layout {
		wg.Go(func() {
			w, err := sink.Body(i)
			if err == nil {
				_, err = w.WriteAt(bodies[i], 0)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.NoError(t, sink.Finish())
}

// Copy writes a source, as it is, to a sink.
func Copy(t testing.TB, src tensor.Source, sink tensor.Sink) {
	t.Helper()
	layout := slices.Collect(src.All())
	require.NoError(t, sink.Begin(src.Meta(), layout))
	for i, info := range layout {
		body, err := sink.Body(i)
		require.NoError(t, err)
		_, err = body.WriteAt(Bytes(t, src, info.Name), 0)
		require.NoError(t, err)
	}
	require.NoError(t, sink.Finish())
}

// Files returns the names of all files of a directory, hidden ones too, sorted.
func Files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
