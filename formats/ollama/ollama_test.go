package ollama

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/stretchr/testify/require"
)

// names are those of talks in the goldens.
var names = []string{"first", "later", "system", "all"}

// TestMatch tells templates by what transformers' Jinja makes of them, and makes the same.
func TestMatch(t *testing.T) {
	text, err := os.ReadFile("testdata/rendered.json")
	require.NoError(t, err)
	var list []struct {
		Name string
		Made map[string]*string
	}
	require.NoError(t, json.Unmarshal(text, &list))
	found := make(map[string]string)
	systems := make(map[string]string)
	used := make(map[string]bool)
	for _, x := range list {
		render := func(talk []Message) (string, error) {
			i := slices.IndexFunc(talks, func(m []Message) bool { return slices.Equal(m, talk) })
			if made := x.Made[names[i]]; made != nil {
				return *made, nil
			}
			return "", errors.New("refused")
		}
		got, ok := Match(render, "<BOS>", "<EOS>")
		if !ok {
			continue
		}
		found[x.Name], systems[x.Name] = got.Name, got.System
		used[got.Name] = true
		require.NotEmpty(t, got.Stop)
		tmpl, err := template.New("").Parse(got.Text)
		require.NoError(t, err)
		for i, talk := range talks {
			if want := x.Made[names[i]]; want != nil {
				made, err := Render(tmpl, talk, got.System)
				require.NoError(t, err)
				require.Equal(t, strings.TrimPrefix(*want, "<BOS>"), made, "%s %s", x.Name, names[i])
			}
		}
	}
	for name, want := range map[string]string{
		"chatml 2": "chatml", "chatml 4": "chatml", "chatml 8": "chatml", "chatml 16": "chatml", "chatml 1": "chatml without roles of the system",
		"zephyr 3": "zephyr", "mistral-instruct 11": "mistral-instruct", "mistral-instruct 15": "mistral-instruct, spaced", "llama2-chat 13": "llama2-chat",
		"gemma-instruct 22": "gemma-instruct", "llama3-instruct 23": "llama3-instruct", "phi-3 30": "phi-3",
		"Qwen-Qwen2.5-7B-Instruct.jinja": "chatml", "Qwen-Qwen3-0.6B.jinja": "chatml", "microsoft-Phi-3.5-mini-instruct.jinja": "phi-3",
		"meta-llama-Llama-3.1-8B-Instruct.jinja":         "llama3.1-instruct",
		"deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja": "deepseek-r1",
	} {
		require.Equal(t, want, found[name], name)
	}
	require.Equal(t, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", systems["Qwen-Qwen2.5-7B-Instruct.jinja"])
	require.Empty(t, systems["Qwen-Qwen3-0.6B.jinja"])
	require.NotContains(t, found, "meta-llama-Llama-3.2-3B-Instruct.jinja", "it prints the day")
	for _, f := range formats {
		require.True(t, used[f.name], "no template is told to be %s", f.name)
	}
	t.Logf("%d of %d templates are known", len(found), len(list))
	for _, x := range list {
		if found[x.Name] == "" {
			t.Logf("unknown: %s", x.Name)
		}
	}
}

func TestMatchRefuses(t *testing.T) {
	_, ok := Match(func([]Message) (string, error) { return "", errors.New("no") }, "", "")
	require.False(t, ok)
	_, ok = Match(func([]Message) (string, error) { return "the same for all", nil }, "", "")
	require.False(t, ok)
	// Tokens that a template would take for its own language.
	_, ok = Match(func(m []Message) (string, error) {
		return "<|user|>\n" + m[0].Content + "{{ broken\n<|assistant|>\n", nil
	}, "{{", "{{ broken")
	require.False(t, ok)
}

func TestModelfile(t *testing.T) {
	m := Modelfile{
		Comments: []string{"one\ntwo"}, From: "./a b.gguf", Adapter: "./ad.gguf", Template: "{{ .Prompt }}\n", System: "Be\n\"short\".",
		Stop: []string{"<|im_end|>"}, NumCtx: 4096,
	}
	text, err := m.Encode()
	require.NoError(t, err)
	require.Equal(t, `# one
# two
FROM "./a b.gguf"
ADAPTER "./ad.gguf"
TEMPLATE """{{ .Prompt }}
"""
SYSTEM """Be
"short"."""
PARAMETER stop "<|im_end|>"
PARAMETER num_ctx 4096
`, string(text))
	for _, bad := range []Modelfile{{From: "a\nFROM b"}, {Template: `"""`}, {Stop: []string{`"`}}} {
		_, err := bad.Encode()
		require.Error(t, err)
	}
}
