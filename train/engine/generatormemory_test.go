//go:build !race

package engine

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// Nothing is allocated for a token but a little.
func TestGeneratorAllocatesLittle(t *testing.T) {
	e := engineOf(t, 3, 4000, nil)
	g := e.NewGenerator()
	var before, after runtime.MemStats
	n := 0
	_, err := g.Generate(context.Background(), random(1, 300), Sampling{Temperature: 1, TopK: 10, TopP: 0.9, Seed: 1}, func(int32) bool {
		switch n++; n {
		case 50:
			runtime.ReadMemStats(&before)
		case 150:
			runtime.ReadMemStats(&after)
		}
		return n < 150
	})
	require.NoError(t, err)
	require.Less(t, (after.TotalAlloc-before.TotalAlloc)/100, uint64(16<<10))
}
