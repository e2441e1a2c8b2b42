package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTemplateOfARun goes where the result goes: it lies beside the adapter, is in every
// export, and is what a chat with the adapter uses.
func TestTemplateOfARun(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	template := chatTemplates["good"]
	put(t, at("template"), template)
	put(t, at("data/train.jsonl"), chatRow)
	stories := at("stories260K")
	// has looks for the template as programs find it.
	has := func(path string) {
		t.Helper()
		m, err := openModel(path)
		require.NoError(t, err)
		defer m.Close()
		v, err := m.vocab()
		require.NoError(t, err)
		require.Equal(t, template, v.ChatTemplate)
		require.Empty(t, v.ChatTemplates)
	}
	args := func(model, out string, more ...string) []string {
		return append([]string{"train", "--model", model, "--data", at("data"), "--output-dir", at(out), "--iters", "1", "--rank", "2", "--max-seq-length", "128",
			"--chat-template", at("template"), "--quiet"}, more...)
	}
	var r trainResult
	okJSON(t, &r, args(stories, "out", "--export", "merged,merged-nf4,gguf:f16,gguf:q8_0")...)
	require.Equal(t, template, readFile(t, at("out/"+templateName)))
	require.Equal(t, template, readFile(t, at("out/checkpoint-1/"+templateName)))
	for _, x := range r.Exports {
		has(x.Out)
	}
	var config map[string]any
	require.NoError(t, json.Unmarshal([]byte(readFile(t, filepath.Join(r.Exports[0].Out, "tokenizer_config.json"))), &config))
	require.Equal(t, template, config["chat_template"], "where transformers 4 looks")
	require.Equal(t, template, readFile(t, filepath.Join(r.Exports[0].Out, templateName)), "where transformers 5 looks")

	// A base with another template, and one that is a GGUF file and copied but for the sums.
	ok(t, "merge", "--base", stories, "--adapter", at("out"), "--chat-template", "chatml", "--out", at("chatml.gguf"))
	okJSON(t, &r, args(at("chatml.gguf"), "gguf", "--export", "gguf,merged")...)
	has(r.Exports[0].Out)
	has(r.Exports[1].Out)
	// Of full fine-tuning the result is a model.
	okJSON(t, &r, args(stories, "full", "--fine-tune-type", "full", "--export", "gguf:q8_0")...)
	has(at("full"))
	has(r.Exports[0].Out)

	// The model of the adapter has none, or another.
	for _, model := range []string{stories, at("chatml.gguf")} {
		o := nibble(t, "generate", "--model", model, "--adapter", at("out"), "--chat", "--prompt", "Who?", "--max-tokens", "3", "--json")
		require.Equal(t, exitDone, o.code, o.stderr)
		require.Contains(t, o.stderr, "chat template of "+at("out/"+templateName))
		var g generateResult
		require.NoError(t, json.Unmarshal([]byte(o.stdout), &g))
		require.Equal(t, "<s>[user] Who?[assistant] ", g.Prompt)
	}
	o := nibble(t, "generate", "--model", stories, "--adapter", at("out"), "--chat-template", "chatml", "--prompt", "Who?", "--max-tokens", "3")
	require.NotContains(t, o.stderr, templateName)
	o = nibble(t, "generate", "--model", filepath.Join(at("out"), exportName, "stories260K-out-merged"), "--adapter", at("out"), "--chat", "--prompt", "Who?", "--max-tokens", "3")
	require.NotContains(t, o.stderr, templateName, "it is the model's own")
	o = nibbleReading(t, "Who?\n/adapter none\nWho?\n", "chat", "--model", at("chatml.gguf"), "--adapter", at("out"), "--max-tokens", "3")
	require.Equal(t, exitDone, o.code, o.stderr)
	require.Contains(t, o.stderr, "chat template of "+at("out/"+templateName))
	require.Contains(t, o.stderr, "(adapter none; chat template of chatml")
	o = nibbleReading(t, "Who?\n/adapter none\nWho?\n", "chat", "--model", stories, "--adapter", at("out"), "--max-tokens", "3")
	require.Equal(t, exitDone, o.code, o.stderr)
	require.Contains(t, o.stderr, "(adapter none; the chat template stays)")

	o = nibble(t, "merge", "--base", stories, "--adapter", at("out"), "--chat-template", at("none"), "--out", at("x"))
	require.NotEqual(t, exitDone, o.code)
	require.Contains(t, o.stderr, "give a file, or one of: ")
	require.NoDirExists(t, at("x"))
	require.NotContains(t, strings.Join(r.Exports[0].Notes, " "), "chat template of")
}
