package modelcard

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// FuzzCard reads any README.md and generation_config.json. What is made of them
// must survive the way to a model card and back.
func FuzzCard(f *testing.F) {
	for _, c := range readGoldens(f).Cases {
		f.Add(c.Files[ReadmeName], c.Files[GenerationName], c.Dir, c.Params[0])
	}
	f.Fuzz(func(t *testing.T, readme, generation, name string, total int64) {
		if len(readme) > 1<<16 {
			return
		}
		card, _ := frontMatter(readme, false)
		settings, _ := parseJSON([]byte(generation))
		c := &Card{card: card, generation: settings}
		p := Params{Total: total, Shared: total}
		meta, _ := c.GGUF(name, p)

		text, _ := FromGGUF(meta, p)
		card, err := frontMatter(string(text), false)
		require.NoError(t, err, "%s", text)
		again, notes := (&Card{card: card}).GGUF("back", p)
		require.Empty(t, notes)
		for _, kv := range meta {
			if v, ok := again.Get(kv.Key); ok || Covers(kv.Key) && !slices.ContainsFunc(sampling, func(s setting) bool { return prefix+s.field == kv.Key }) {
				require.Equal(t, spelled(t, tensor.Meta{kv}), spelled(t, tensor.Meta{{Key: kv.Key, Value: v}}), "%s", text)
			}
		}
	})
}

// FuzzOverride reads any --metadata file.
func FuzzOverride(f *testing.F) {
	for _, c := range readGoldens(f).Cases {
		if c.Override != nil {
			f.Add(*c.Override)
		}
	}
	f.Add(`{"general.base_models": [{}], "general.tags": [1]}`)
	f.Fuzz(func(t *testing.T, text string) {
		o, err := parseOverride("o.json", []byte(text))
		if err != nil {
			require.True(t, isInputError(err), "%v", err)
			return
		}
		_, notes := (&Card{Override: o}).GGUF("model", Params{})
		require.Empty(t, notes, "what is accepted can be written")
	})
}
