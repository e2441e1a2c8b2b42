package chat_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/jinja"
	"github.com/seed18967229/nibble/train/data/chat"
)

// When chat_goldens.py looked at the clock.
var now = time.Date(2026, 11, 26, 9, 8, 7, 0, time.UTC)

const bos, eos = "<|startoftext|>", "<|endoftext|>"

type template struct{ Name, Source string }

type context struct {
	Name      string
	Messages  jsontext.Value
	Tools     jsontext.Value
	Documents jsontext.Value
	Vars      map[string]jsontext.Value
	Add       bool `json:"add_generation_prompt"`
	Continue  bool `json:"continue_final_message"`
}

type outcome struct {
	Text           *string
	Error, Message string
}

func (c context) input(t testing.TB) chat.Input {
	list := func(raw jsontext.Value) []any {
		if raw == nil || raw.Kind() == 'n' {
			return nil
		}
		all, err := chat.DecodeMessages(raw)
		require.NoError(t, err)
		return all
	}
	in := chat.Input{
		Messages: list(c.Messages), Tools: list(c.Tools), Documents: list(c.Documents), AddGenerationPrompt: c.Add, ContinueFinalMessage: c.Continue,
		BOS: bos, EOS: eos, Special: map[string]string{"pad_token": "<pad>", "unk_token": "<unk>"}, Vars: map[string]any{}, Now: now,
	}
	for k, raw := range c.Vars {
		v, err := chat.Decode(raw)
		require.NoError(t, err)
		in.Vars[k] = v
	}
	return in
}

func load(t testing.TB, name string, to any) {
	raw, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	if strings.HasSuffix(name, ".zst") {
		z, err := zstd.NewReader(nil)
		require.NoError(t, err)
		defer z.Close()
		raw, err = z.DecodeAll(raw, nil)
		require.NoError(t, err)
	}
	require.NoError(t, json.Unmarshal(raw, to))
}

func material(t testing.TB) (templates []template, contexts []context) {
	load(t, "templates.json.zst", &templates)
	load(t, "contexts.json", &contexts)
	return templates, contexts
}

// Every template of the material with every conversation: the text that transformers makes, or an error where it has one.
func TestTemplatesRenderAsTransformersDoes(t *testing.T) {
	templates, contexts := material(t)
	var goldens map[string]map[string]outcome
	load(t, "goldens.json.zst", &goldens)
	texts, failures := 0, 0
	for _, tm := range templates {
		t.Run(tm.Name, func(t *testing.T) {
			parsed, parseErr := chat.Parse(tm.Source)
			for _, c := range contexts {
				want, ok := goldens[tm.Name][c.Name]
				require.True(t, ok, c.Name)
				var got chat.Rendered
				err := parseErr
				if err == nil {
					got, err = parsed.Render(c.input(t))
				}
				if want.Text != nil {
					if err != nil {
						t.Errorf("%s: %v", c.Name, err)
					} else if got.Text != *want.Text {
						t.Errorf("%s:\n got %q\nwant %q", c.Name, got.Text, *want.Text)
					}
					texts++
					continue
				}
				failures++
				if err == nil {
					t.Errorf("%s: no error, but %s: %s\n%q", c.Name, want.Error, want.Message, got.Text)
					continue
				}
				var e *jinja.Error
				if errors.As(err, &e) && want.Error == "RecursionError" {
					require.Equal(t, jinja.Limit, e.Kind)
				} else if e != nil && e.Message != want.Message {
					t.Errorf("%s: %s\nwant %s: %s", c.Name, e.Message, want.Error, want.Message)
				}
			}
		})
	}
	require.Equal(t, [2]int{3253, 797}, [2]int{texts, failures})
}
