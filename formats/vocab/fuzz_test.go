package vocab_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

// usable fails unless what was opened can be written and read again.
func usable(t *testing.T, v *vocab.Vocab) {
	t.Helper()
	require.NoError(t, v.Validate())
	meta := v.GGUF()
	again, err := vocab.FromGGUF(meta)
	require.NoError(t, err)
	sameMeta(t, meta, again.GGUF())
	for _, v := range []*vocab.Vocab{v, again} {
		if _, err = v.Files(); err != nil {
			require.ErrorIs(t, err, tensor.ErrUnsupported) // no unknown piece
		}
	}
}

// described fails unless a directory is described as what it was opened as.
func described(t *testing.T, dir string, rules arch.Tokenizers, v *vocab.Vocab) *vocab.Description {
	t.Helper()
	d, err := vocab.DescribeDir(dir, rules)
	require.NoError(t, err)
	require.Equal(t, map[vocab.Kind]string{vocab.SPM: "SentencePiece BPE", vocab.BPE: "byte-level BPE"}[v.Kind], d.Type)
	return d
}

func FuzzOpenSentencePieceDir(f *testing.F) {
	for _, v := range golden(f).Variants {
		if _, ok := v.Files["tokenizer.model"]; ok {
			f.Add([]byte(v.Files["tokenizer_config.json"]), []byte(v.Files["added_tokens.json"]), []byte(v.Files["config.json"]), 524)
		}
	}
	model := read(f, storiesModel)
	f.Fuzz(func(t *testing.T, config, added, ids []byte, size int) {
		dir := t.TempDir()
		write(t, dir, "tokenizer.model", string(model))
		write(t, dir, "tokenizer_config.json", string(config))
		write(t, dir, "added_tokens.json", string(added))
		write(t, dir, "config.json", string(ids))
		v, err := vocab.OpenDir(dir, vocab.Options{Size: min(size, 4096), Rules: arch.LlamaTokenizers})
		if err != nil || len(v.Pieces) > 4096 {
			return
		}
		usable(t, v)
		described(t, dir, arch.LlamaTokenizers, v)
	})
}

func FuzzOpenByteLevelDir(f *testing.F) {
	const base = "../../testdata/tokenizers/"
	for _, name := range []string{"gpt2", "llama3", "qwen2"} {
		f.Add(read(f, base+name+"/tokenizer.json"), read(f, base+name+"/tokenizer_config.json"), []byte(`{"eos_token_id": 500}`), 0, false)
	}
	for _, v := range golden(f).Variants {
		text, ok := v.Files["tokenizer.json"]
		if _, spm := v.Files["tokenizer.model"]; ok && !spm {
			f.Add(tokenizerJSON(f, text), []byte(v.Files["tokenizer_config.json"]), []byte(v.Files["config.json"]), 520, true)
		}
	}
	f.Fuzz(func(t *testing.T, tokenizer, config, ids []byte, size int, anyPre bool) {
		dir := t.TempDir()
		write(t, dir, "tokenizer.json", string(tokenizer))
		write(t, dir, "tokenizer_config.json", string(config))
		write(t, dir, "config.json", string(ids))
		o := vocab.Options{Size: min(size, 4096), Rules: arch.LlamaTokenizers}
		if anyPre {
			o.Pre = "gpt-2"
		}
		v, err := vocab.OpenDir(dir, o)
		if err != nil || len(v.Pieces) > 4096 {
			return
		}
		usable(t, v)
		described(t, dir, o.Rules, v)
	})
}

func FuzzVocabFiles(f *testing.F) {
	const base = "../../testdata/tokenizers/gpt2/"
	f.Add(read(f, base+"vocab.json"), read(f, base+"merges.txt"), []byte(`{"a b": 501}`), "GPT2Tokenizer")
	f.Add(read(f, base+"vocab.json"), read(f, base+"merges.txt"), []byte(`{}`), "Qwen2Tokenizer")
	f.Fuzz(func(t *testing.T, tokens, merges, added []byte, class string) {
		dir := t.TempDir()
		write(t, dir, "vocab.json", string(tokens))
		write(t, dir, "merges.txt", string(merges))
		write(t, dir, "added_tokens.json", string(added))
		write(t, dir, "config.json", `{"tokenizer_class": "`+class+`"}`)
		v, err := vocab.OpenDir(dir, vocab.Options{Rules: arch.ByteLevelTokenizers})
		if err != nil || len(v.Pieces) > 4096 {
			return
		}
		usable(t, v)
		described(t, dir, arch.ByteLevelTokenizers, v)
	})
}

func FuzzTikToken(f *testing.F) {
	f.Add("YQ== 0\nYg== 1\nYWI= 2\n", `{"additional_special_tokens": ["<|x|>"], "eos_token": "<|x|>"}`)
	f.Add(ranks(262), `{"added_tokens_decoder": {"262": {"content": "<|x|>", "special": true}}}`)
	f.Fuzz(func(t *testing.T, text, config string) {
		dir := t.TempDir()
		write(t, dir, "tokenizer.model", text)
		write(t, dir, "tokenizer_config.json", config)
		v, err := vocab.OpenDir(dir, vocab.Options{TextOnly: true})
		if err != nil || v.Kind != vocab.BPE || len(v.Pieces) > 4096 {
			return
		}
		tok, err := bpe.New(v.Spec)
		require.NoError(t, err)
		tok.Decode(tok.Encode(text, true), false)
	})
}

func FuzzFromGGUF(f *testing.F) {
	f.Add("a\nb\nab\n<|x|>\n[PAD4]", "a b", []byte{1, 1, 1, 3, 5}, "qwen2", uint32(3), uint32(3), true, true)
	f.Add("<unk>\n<s>\n</s>\na\n<0x41>\n▁▁two", "", []byte{2, 3, 3, 1, 6, 4}, "default", uint32(1), uint32(2), true, false)
	f.Add("a\nĠ\n b\naĠ", "a Ġ\nĠ b\n \nx", []byte{1, 1, 1, 4}, "gemma4", uint32(0), uint32(9), false, true)
	f.Add("<pad>\n</s>\n<unk>\n▁\na\n▁a", "", []byte{3, 3, 2, 1, 1, 1}, "t5", uint32(0), uint32(1), false, false)
	f.Add("<unk>\n</s>\n▁\na", "BAAAAAAEAABhAA==", []byte{2, 3, 1, 1}, "t5", uint32(0), uint32(1), false, false)
	f.Fuzz(func(t *testing.T, tokens, merges string, types []byte, pre string, bos, eos uint32, add, bytes bool) {
		meta := tensor.Meta{{Key: "tokenizer.ggml.model", Value: "llama"}, {Key: "tokenizer.ggml.pre", Value: pre}}
		switch {
		case bytes:
			meta[0].Value = "gpt2"
		case pre == "t5":
			meta[0].Value = pre
			if table, err := base64.StdEncoding.DecodeString(merges); err == nil && len(table) > 0 {
				meta = append(meta, tensor.KV{Key: "tokenizer.ggml.precompiled_charsmap", Value: table})
			}
		}
		list := strings.Split(tokens, "\n")
		numbers, scores := make([]int32, len(list)), make([]float32, len(list))
		for i := range list {
			if i < len(types) {
				numbers[i] = int32(types[i])
			}
			scores[i] = float32(-i)
		}
		meta = append(meta,
			tensor.KV{Key: "tokenizer.ggml.tokens", Value: list}, tensor.KV{Key: "tokenizer.ggml.scores", Value: scores},
			tensor.KV{Key: "tokenizer.ggml.token_type", Value: numbers}, tensor.KV{Key: "tokenizer.ggml.merges", Value: strings.Split(merges, "\n")},
			tensor.KV{Key: "tokenizer.ggml.bos_token_id", Value: bos}, tensor.KV{Key: "tokenizer.ggml.eos_token_id", Value: eos},
			tensor.KV{Key: "tokenizer.ggml.add_bos_token", Value: add}, tensor.KV{Key: "tokenizer.ggml.add_eos_token", Value: !add})
		v, err := vocab.FromGGUF(meta)
		if err != nil {
			return
		}
		usable(t, v)
		if v.Spec != nil {
			tok, err := bpe.New(v.Spec)
			require.NoError(t, err)
			tok.Decode(tok.Encode(tokens, true), false)
		}
	})
}
