package modelcard

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/tensor"
)

// back makes a directory of metadata and returns the metadata of that.
func back(t testing.TB, meta tensor.Meta, p Params) (again tensor.Meta, readme string) {
	t.Helper()
	dir := t.TempDir()
	text, _ := FromGGUF(meta, p)
	if text != nil {
		require.NoError(t, os.WriteFile(filepath.Join(dir, ReadmeName), text, 0o666))
	}
	fields, _ := Sampling(meta)
	config, err := hf.Edit([]byte("{}"), fields, nil)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, GenerationName), config, 0o666))
	c, err := Read(dir)
	require.NoError(t, err)
	again, notes := c.GGUF("back", p)
	require.Empty(t, append(c.Notes, notes...), "%s", text)
	return again, string(text)
}

// TestThereAndBack makes a directory of what every golden case's GGUF file says,
// and of that the metadata again: it is the same, but for keys that are not
// covered and names that the directory would make up.
func TestThereAndBack(t *testing.T) {
	for _, c := range readGoldens(t).Cases {
		if c.Fails != "" {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			p := params(c.Params)
			meta, _ := c.read(t).GGUF(c.Dir, p)
			want := slices.DeleteFunc(slices.Clone(meta), func(kv tensor.KV) bool { return !Covers(kv.Key) })
			again, readme := back(t, meta, p)
			again = slices.DeleteFunc(again, func(kv tensor.KV) bool {
				_, was := want.Get(kv.Key)
				return !was && (kv.Key == "general.name" || kv.Key == "general.size_label")
			})
			require.Equal(t, spelled(t, want), spelled(t, again), "%s", readme)
		})
	}
}

func TestFromGGUF(t *testing.T) {
	meta := tensor.Meta{
		{Key: "general.architecture", Value: "llama"},
		{Key: "general.name", Value: "A  \"Model\":\nof\tmine"},
		{Key: "general.version", Value: "1.0"},
		{Key: "general.quantized_by", Value: "me"},
		{Key: "general.license", Value: "apache-2.0"},
		{Key: "general.base_model.count", Value: uint32(3)},
		{Key: "general.base_model.0.name", Value: "Llama 3.1 8B"},
		{Key: "general.base_model.0.organization", Value: "Meta Llama"},
		{Key: "general.base_model.0.version", Value: "3.1"},
		{Key: "general.base_model.0.repo_url", Value: "https://huggingface.co/meta-llama/Llama-3.1-8B"},
		{Key: "general.base_model.1.name", Value: "no"},
		{Key: "general.base_model.1.doi", Value: "10.1/2"},
		{Key: "general.dataset.count", Value: uint32(0)},
		{Key: "general.tags", Value: []string{"chat", "no", "7B", "", "a: b", "2024-01-01", "\u2028\x00\u0085\ufeff", "a [b] & c", "[", "a !b"}},
		{Key: "general.languages", Value: []string{"en", "no"}},
	}
	// Without the version, which is part of the basename, the id says the same.
	meta = slices.DeleteFunc(meta, func(kv tensor.KV) bool { return kv.Key == "general.base_model.0.version" })
	readme, notes := FromGGUF(meta, Params{})
	require.Equal(t, `---
license: apache-2.0
language:
- en
- "no"
tags:
- chat
- "no"
- "7B"
- ""
- "a: b"
- "2024-01-01"
- "\u2028\u0000\u0085\ufeff"
- "a [b] & c"
- "\u005b"
- "a \u0021b"
base_model:
- meta-llama/Llama-3.1-8B
- name: "no"
  doi: "10.1/2"
- {}
datasets: []
model_name: "A  \"Model\":\nof\tmine"
model_version: "1.0"
---

# A "Model": of mine

This card was made from the metadata of a GGUF file; the original is not in it.
`, string(readme))
	require.Equal(t, []string{"general.quantized_by has no place in a model card"}, notes)
	again, _ := back(t, meta, Params{})
	for _, kv := range meta {
		if Covers(kv.Key) {
			v, _ := again.Get(kv.Key)
			require.Equal(t, kv.Value, v, kv.Key)
		}
	}

	readme, notes = FromGGUF(tensor.Meta{{Key: "general.architecture", Value: "llama"}}, Params{})
	require.Nil(t, readme)
	require.Empty(t, notes)
}

// TestFromHostileGGUF gives metadata that no writer would make: the card stays
// small, and what is left out is noted.
func TestFromHostileGGUF(t *testing.T) {
	meta := tensor.Meta{
		{Key: "general.name", Value: strings.Repeat("x", 1<<20)},
		{Key: "general.author", Value: []any{1}},
		{Key: "general.license", Value: "\xff\xfe"},
		{Key: "general.tags", Value: slices.Repeat([]string{"t"}, 1<<20)},
		{Key: "general.languages", Value: []string{strings.Repeat("x", 1<<20)}},
		{Key: "general.base_model.count", Value: uint32(1 << 31)},
		{Key: "general.dataset.count", Value: int8(3)},
	}
	readme, notes := FromGGUF(meta, Params{})
	require.Less(t, len(readme), 1<<16)
	require.Len(t, notes, 5, "%q", notes)
	again, _ := back(t, meta[2:], Params{})
	license, _ := again.Get("general.license")
	require.Equal(t, "\ufffd", license)
}

// TestFromLargeGGUF gives as much as is taken at all: what comes of it can be
// read again.
func TestFromLargeGGUF(t *testing.T) {
	meta := tensor.Meta{{Key: "general.base_model.count", Value: uint32(5000)}, {Key: "general.dataset.count", Value: uint32(5000)}}
	for _, list := range []string{"base_model", "dataset"} {
		for i := range 5000 {
			for _, k := range entryKeys {
				meta = append(meta, tensor.KV{Key: fmt.Sprintf("general.%s.%d.%s", list, i, k), Value: "[ &x"})
			}
		}
	}
	meta = append(meta, tensor.KV{Key: "general.tags", Value: slices.Repeat([]string{"t"}, 5000)},
		tensor.KV{Key: "general.languages", Value: slices.Repeat([]string{strings.Repeat("\x00{", 1000)}, 5000)})
	readme, notes := FromGGUF(meta, Params{})
	require.Less(t, len(readme), maxFrontMatter)
	require.NotEmpty(t, notes)
	require.LessOrEqual(t, len(notes), maxNotes)
	card, err := frontMatter(string(readme), false)
	require.NoError(t, err)
	require.Len(t, card.fields["base_model"].list, maxItems)
	require.Len(t, card.fields["tags"].list, maxItems)
}

func TestSampling(t *testing.T) {
	text := func(fields []hf.Field) string {
		b, err := hf.Edit([]byte(`{"eos_token_id": 2}`), fields, nil)
		require.NoError(t, err)
		var compact any
		require.NoError(t, json.Unmarshal(b, &compact))
		b, err = json.Marshal(compact)
		require.NoError(t, err)
		return string(b)
	}
	fields, notes := Sampling(tensor.Meta{
		{Key: "general.sampling.temp", Value: float32(0.6)}, {Key: "general.sampling.penalty_repeat", Value: float32(1.1)},
		{Key: "general.sampling.top_k", Value: int32(40)}, {Key: "general.sampling.sequence", Value: "a\"b"},
		{Key: "general.sampling.min_p", Value: []string{"x"}},
	})
	require.Equal(t, `{"do_sample":true,"eos_token_id":2,"repetition_penalty":1.1,"sequence":"a\"b","temperature":0.6,"top_k":40}`, text(fields))
	require.Len(t, notes, 2)
	fields, notes = Sampling(tensor.Meta{{Key: "general.sampling.temp", Value: float32(0)}, {Key: "general.sampling.top_k", Value: int32(40)}})
	require.Equal(t, `{"eos_token_id":2,"temperature":0,"top_k":40}`, text(fields), "greedy")
	require.Empty(t, notes)
	fields, _ = Sampling(nil)
	require.Empty(t, fields)
}
