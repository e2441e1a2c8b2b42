package convert

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// What convert_hf_to_gguf.py of llama.cpp v0.5.0 makes of stories260K with
// --bigendian is read as what it makes without. The files are too large to keep:
// they are laid out here, and are the converter's by their hashes.
//
// With --outtype bf16 and q8_0 on a little-endian machine it leaves the bytes of
// these tensors as they are, which no big-endian machine can read.
func TestBigEndianOfTheReferenceConverter(t *testing.T) {
	d, m, v := checkpoint(t, storiesDir)
	for outType, want := range map[string]string{
		"f32": "ddb1bb65185c989c1a562e267a93c340bb4a4f06f772441f79b190c1f4066e60",
		"f16": "7f2e3947687a8dc5823e5add038c1e77901db80cf0acf1ebf8957c64ff4f9446",
	} {
		little := inOrder(t, toFile(t, d, m, v, GGUFOptions{OutType: outType, General: named("stories260K")}, 2), outType)
		b := bigEndian(t, little)
		sum := sha256.Sum256(b)
		require.Equal(t, want, hex.EncodeToString(sum[:]), "not the converter's file")

		big, err := gguf.Parse(bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		require.Equal(t, little.Meta(), big.Meta())
		require.Equal(t, slices.Collect(little.All()), slices.Collect(big.All()))
		for info := range little.All() {
			require.Equal(t, tensortest.Bytes(t, little, info.Name), tensortest.Bytes(t, big, info.Name), "%s", info.Name)
		}
	}
}

// inOrder returns a conversion of stories260K with the tensors in the order of
// the converter.
func inOrder(t *testing.T, src tensor.Source, outType string) tensor.Source {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(goldens, "stories260K", "convert_"+outType+".json"))
	require.NoError(t, err)
	var want struct {
		Tensors map[string]struct{ Offset int64 }
	}
	require.NoError(t, json.Unmarshal(text, &want))
	infos := slices.SortedFunc(src.All(), func(a, b tensor.Info) int {
		return cmp.Compare(want.Tensors[a.Name].Offset, want.Tensors[b.Name].Offset)
	})
	var entries []tensor.Entry
	for _, info := range infos {
		entries = append(entries, tensor.Forward(src, info, info.Name))
	}
	table, err := tensor.NewTable(src.Meta(), entries)
	require.NoError(t, err)
	return table
}

// bigEndian lays out a source of F32 and F16 as a big-endian file.
func bigEndian(t *testing.T, src tensor.Source) []byte {
	t.Helper()
	var b []byte
	put := func(v any) {
		var err error
		b, err = binary.Append(b, binary.BigEndian, v)
		require.NoError(t, err)
	}
	text := func(s string) { put(uint64(len(s))); b = append(b, s...) }
	array := func(id uint32, n int) { put([]uint32{9, id}); put(uint64(n)) }

	infos := slices.Collect(src.All())
	b = append(b, gguf.Magic...)
	put(uint32(3))
	put([]uint64{uint64(len(infos)), uint64(len(src.Meta()))})
	for _, kv := range src.Meta() {
		text(kv.Key)
		switch v := kv.Value.(type) {
		case uint32:
			put([]uint32{4, v})
		case float32:
			put(uint32(6))
			put(v)
		case bool:
			put(uint32(7))
			put(v)
		case string:
			put(uint32(8))
			text(v)
		case []int32:
			array(5, len(v))
			put(v)
		case []float32:
			array(6, len(v))
			put(v)
		case []string:
			array(8, len(v))
			for _, s := range v {
				text(s)
			}
		default:
			require.Failf(t, "type", "%s is a %T", kv.Key, v)
		}
	}
	var data []byte
	for _, info := range infos {
		text(info.Name)
		put(uint32(len(info.Shape)))
		for _, n := range slices.Backward(info.Shape) {
			put(n)
		}
		id, _ := gguf.TypeID(info.DType)
		put(id)
		put(uint64(len(data)))

		_, size := info.DType.Block()
		x := tensortest.Bytes(t, src, info.Name)
		for i := int64(0); i < int64(len(x)); i += size {
			slices.Reverse(x[i : i+size])
		}
		data = append(data, x...)
		data = append(data, make([]byte, -len(data)&31)...)
	}
	b = append(b, make([]byte, -len(b)&31)...)
	return append(b, data...)
}
