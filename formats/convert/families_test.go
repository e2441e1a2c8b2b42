package convert

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/modelcard"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"iter"
)

func TestTmpFamilies(t *testing.T) {
	dirs, _ := filepath.Glob(goldens + "/families/*/config.json")
	for _, cfg := range dirs {
		dir := filepath.Dir(cfg)
		for _, outType := range OutTypes() {
			t.Run(filepath.Base(dir)+"/"+outType, func(t *testing.T) {
				text, err := os.ReadFile(filepath.Join(dir, "convert_"+outType+".json"))
				require.NoError(t, err)
				var want manifest
				require.NoError(t, json.Unmarshal(text, &want))
				if len(want.Tensors) == 0 {
					t.Skip()
				}
				d, err := hf.Open(dir)
				require.NoError(t, err)
				defer d.Close()
				m, err := arch.ParseConfig(d.Config())
				require.NoError(t, err)
				src, err := Canonical(d, m)
				require.NoError(t, err)
				if outType == "f32" {
					for _, x := range src.Dropped {
						t.Log("drop", x.Name, x.Reason)
					}
				}
				v := &vocab.Vocab{Kind: vocab.SPM, BOS: vocab.None, EOS: vocab.None, UNK: vocab.None, SEP: vocab.None, PAD: vocab.None}
				for i := range m.VocabSize {
					v.Pieces = append(v.Pieces, vocab.Piece{Text: fmt.Sprint("t", i), Type: vocab.Normal})
				}
				v.Pieces[0].Type = vocab.Unknown
				card, err := modelcard.Read(dir)
				require.NoError(t, err)
				f := toFile(t, src, m, v, GGUFOptions{OutType: outType, General: func(list iter.Seq[tensor.Info]) tensor.Meta {
					meta, notes := card.GGUF(filepath.Base(dir), modelcard.CountParams(list))
					_ = notes
					return meta
				}}, 2)
				var gotKeys, wantKeys []string
				wantOrder := keyOrder(t, text, "metadata")
				for _, kv := range f.Meta() {
					if !strings.HasPrefix(kv.Key, "tokenizer.") {
						gotKeys = append(gotKeys, kv.Key)
					}
				}
				for _, k := range wantOrder {
					if !strings.HasPrefix(k, "tokenizer.") {
						wantKeys = append(wantKeys, k)
					}
				}
				assertEq(t, wantKeys, gotKeys)
				for _, kv := range f.Meta() {
					if strings.HasPrefix(kv.Key, "tokenizer.") {
						continue
					}
					w := want.Metadata[kv.Key]
					if w.Type == "array" {
						if w.SHA256 != arrayHash(t, kv.Value) {
							t.Errorf("%s: %v", kv.Key, kv.Value)
						}
						continue
					}
					if w.Type != fmt.Sprintf("%T", kv.Value) || fmt.Sprint(w.Value) != fmt.Sprint(num(kv.Value)) {
						t.Errorf("%s: want %v %v, got %T %v", kv.Key, w.Type, w.Value, kv.Value, kv.Value)
					}
				}
				var got []string
				for info := range f.All() {
					got = append(got, info.Name)
					w := want.Tensors[info.Name]
					dims := slices.Clone(w.Dims)
					slices.Reverse(dims)
					if fmt.Sprint(dims) != fmt.Sprint([]int64(info.Shape)) || w.Type != info.DType.String() {
						t.Errorf("%s: want %v %v, got %v %v", info.Name, w.Type, dims, info.DType, info.Shape)
						continue
					}
					sum := sha256.Sum256(tensortest.Bytes(t, f, info.Name))
					if w.SHA256 != hex.EncodeToString(sum[:]) {
						t.Errorf("%s: bytes differ", info.Name)
					}
				}
				assertEq(t, keyOrder(t, text, "tensors"), got)
			})
		}
	}
	_ = gguf.Magic
}

func num(v any) any {
	if f, ok := v.(float32); ok {
		return float64(f)
	}
	if u, ok := v.(uint32); ok {
		return float64(u)
	}
	return v
}
func assertEq(t *testing.T, a, b []string) {
	if !slices.Equal(a, b) {
		t.Errorf("order\nwant %v\ngot  %v", a, b)
	}
}

func keyOrder(t *testing.T, text []byte, member string) []string {
	var top map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(text, &top))
	dec := json.NewDecoder(strings.NewReader(string(top[member])))
	dec.Token()
	var out []string
	for dec.More() {
		k, err := dec.Token()
		require.NoError(t, err)
		out = append(out, k.(string))
		var skip json.RawMessage
		require.NoError(t, dec.Decode(&skip))
	}
	return out
}
