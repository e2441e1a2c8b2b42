package hf

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

func TestShardsOf(t *testing.T) {
	for limit, n := range map[int64]int{0: 1, 100: 3} {
		dir := write(t, Options{MaxShardSize: limit}, nil, u8("a", 90), u8("b", 80), tensor.Info{Name: "c", DType: tensor.U8, Shape: tensor.Shape{70}})
		d, err := Open(dir)
		require.NoError(t, err)
		defer d.Close()
		require.Len(t, d.Shards(), n)
		for _, s := range d.Shards() {
			st, err := os.Stat(filepath.Join(dir, s.Name))
			require.NoError(t, err)
			require.Equal(t, st.Size(), s.Bytes)
		}
	}
}
