package chat_test

import (
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/train/data/chat"
)

// Conversations of any kind against templates of several: no panic, spans in order and within the text.
func FuzzSpans(f *testing.F) {
	templates, contexts := material(f)
	var parsed []*chat.Template
	for _, tm := range templates {
		switch tm.Name {
		case "Qwen-Qwen3-0.6B", "openai-gpt-oss-120b", "mistralai-Mistral-Nemo-Instruct-2407", "ollama-13-llama2-chat":
			t, err := chat.Parse(tm.Source)
			require.NoError(f, err)
			parsed = append(parsed, t)
		}
	}
	named, _ := chat.Named("chatml")
	parsed = append(parsed, named)
	for _, c := range contexts {
		f.Add([]byte(c.Messages))
	}
	f.Add([]byte(`[{"role":"assistant","content":["a",{"type":"text"}],"tool_calls":{}},{"role":1}]`))
	f.Add([]byte(`[{"role":"user","role":"assistant","content":"\ud800"},{"content":18446744073709551616}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		messages, err := chat.DecodeMessages(jsontext.Value(raw))
		if err != nil || len(messages) == 0 {
			return
		}
		for _, tm := range parsed {
			text, spans, err := tm.Spans(chat.Input{Messages: messages, BOS: bos, EOS: eos, Now: now})
			if err != nil {
				continue
			}
			end := 0
			for _, s := range spans {
				require.GreaterOrEqual(t, s.From, end)
				require.Greater(t, s.To, s.From)
				require.LessOrEqual(t, s.To, len(text))
				require.True(t, utf8.ValidString(text[s.From:s.To]) || !utf8.ValidString(text))
				end = s.To
			}
		}
	})
}

func TestDecodeMessages(t *testing.T) {
	for raw, want := range map[string]string{
		`{"role":"user"}`:                  "expected a JSON list of messages, found an object",
		`"a"`:                              "found a string",
		`7`:                                "found a number",
		`[1]`:                              "message 1 of the list is no object",
		`[{}] 1`:                           "more than one JSON value",
		`[{"a":123456789012345678901234}]`: "no integer of 64 bits",
		`[{"a":`:                           "malformed",
	} {
		_, err := chat.DecodeMessages(jsontext.Value(raw))
		require.ErrorContains(t, err, want, raw)
	}
	deep := append([]byte(`[{"a":`), make([]byte, 0, 1<<20)...)
	for range 100000 {
		deep = append(deep, '[')
	}
	_, err := chat.DecodeMessages(deep)
	require.ErrorContains(t, err, "nested more than 100 deep")

	messages, err := chat.DecodeMessages(jsontext.Value(`[{"z":1,"role":"user","a":-0.0,"z":[null,true,1e3,"é\u0041"]}]`))
	require.NoError(t, err)
	tm, err := chat.Parse("{{ messages[0] | tojson }}")
	require.NoError(t, err)
	r, err := tm.Render(chat.Input{Messages: messages})
	require.NoError(t, err)
	require.Equal(t, `{"z": [null, true, 1000.0, "éA"], "role": "user", "a": -0.0}`, r.Text)
}

func TestInputOfGoValues(t *testing.T) {
	tm, err := chat.Parse("{{ messages | tojson }}{{ x }}{{ tools is none }}{{ documents }}{{ bos_token is defined }}{{ pad_token }}{{ add_generation_prompt }}")
	require.NoError(t, err)
	r, err := tm.Render(chat.Input{
		Messages:  []any{map[string]any{"name": "n", "content": []any{1, int64(2), 2.5, nil, true}, "role": "user", "thinking": "hm", "drop": nil}},
		Documents: []any{}, Special: map[string]string{"pad_token": "<pad>"}, Vars: map[string]any{"x": 3}, AddGenerationPrompt: true,
	})
	require.NoError(t, err)
	require.Equal(t, `[{"thinking": "hm", "role": "user", "content": [1, 2, 2.5, null, true], "name": "n", "reasoning_content": "hm"}]3True[]False<pad>True`, r.Text)

	_, err = tm.Render(chat.Input{})
	require.ErrorContains(t, err, "without messages")
	_, err = tm.Render(chat.Input{Messages: []any{"a"}})
	require.ErrorContains(t, err, "message 1 is no object")
	_, err = tm.Render(chat.Input{Messages: []any{map[string]any{"a": struct{}{}}}})
	require.ErrorContains(t, err, "cannot be given a struct {}")
}

// A conversation far longer than the bounds of a small one renders, as its bounds grow with it.
func TestLongConversations(t *testing.T) {
	long := make([]byte, 1<<16)
	for i := range long {
		long[i] = 'a' + byte(i%26)
	}
	messages := talk()
	for range 20 {
		messages = append(messages, talk(string(long), string(long))...)
	}
	templates, _ := material(t)
	for _, tm := range templates {
		if tm.Name != "Qwen-Qwen3-0.6B" && tm.Name != "google-gemma-2-2b-it" {
			continue
		}
		parsed, err := chat.Parse(tm.Source)
		require.NoError(t, err)
		r, err := parsed.Render(chat.Input{Messages: messages, BOS: bos, EOS: eos})
		require.NoError(t, err, tm.Name)
		require.Greater(t, len(r.Text), 40<<16)
	}
}
