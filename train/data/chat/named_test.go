package chat_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/train/data/chat"
)

// The templates of models that go by these names render the same, where those render at all.
func TestNamedTemplatesAreTheModels(t *testing.T) {
	of := map[string]string{
		"chatml": "ollama-07-chatml", "llama3": "ollama-23-llama3-instruct", "llama2": "ollama-13-llama2-chat", "mistral": "ollama-11-mistral-instruct",
		"gemma": "google-gemma-2-2b-it", "openchat": "ollama-05-openchat",
	}
	templates, contexts := material(t)
	for name, model := range of {
		named, ok := chat.Named(name)
		require.True(t, ok, name)
		n := 0
		for _, tm := range templates {
			if tm.Name != model {
				continue
			}
			parsed, err := chat.Parse(tm.Source)
			require.NoError(t, err)
			for _, c := range contexts {
				switch c.Name {
				case "parts", "image", "odd-types", "empty":
					continue // printed as Python does, or refused for an empty system prompt
				}
				want, err := parsed.Render(c.input(t))
				if err != nil {
					continue
				}
				got, err := named.Render(c.input(t))
				if err != nil {
					require.ErrorContains(t, err, "this template has", c.Name)
					continue
				}
				require.Equal(t, want.Text, got.Text, "%s %s", name, c.Name)
				n++
			}
		}
		require.Greater(t, n, 5, name)
	}
}

func TestNamedTemplates(t *testing.T) {
	require.Equal(t, []string{"alpaca", "chatml", "gemma", "llama2", "llama3", "mistral", "openchat", "phi3", "vicuna", "zephyr"}, chat.Names())
	talk := append([]any{map[string]any{"role": "system", "content": "Be brief."}}, talk("Hi", "Hello.", "Bye", "Goodbye.")...)
	for name, want := range map[string]string{
		"alpaca": "<s>Be brief.\n\n### Instruction:\nHi\n\n### Response:\n[Hello.</s>]\n\n### Instruction:\nBye\n\n### Response:\n[Goodbye.</s>]\n\n",
		"chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Hello.<|im_end|>]\n" +
			"<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n[Goodbye.<|im_end|>]\n",
		"gemma": "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n[Hello.<end_of_turn>]\n" +
			"<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n[Goodbye.<end_of_turn>]\n",
		"llama2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST][ Hello. </s>]<s>[INST] Bye [/INST][ Goodbye. </s>]",
		"llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>" +
			"<|start_header_id|>assistant<|end_header_id|>\n\n[Hello.<|eot_id|>]<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>" +
			"<|start_header_id|>assistant<|end_header_id|>\n\n[Goodbye.<|eot_id|>]",
		"mistral": "<s>[INST] Be brief.\n\nHi [/INST][Hello.</s>][INST] Bye [/INST][Goodbye.</s>]",
		"openchat": "<s>GPT4 Correct System: Be brief.<|end_of_turn|>GPT4 Correct User: Hi<|end_of_turn|>GPT4 Correct Assistant:[ Hello.<|end_of_turn|>]" +
			"GPT4 Correct User: Bye<|end_of_turn|>GPT4 Correct Assistant:[ Goodbye.<|end_of_turn|>]",
		"phi3":   "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n[Hello.<|end|>]\n<|user|>\nBye<|end|>\n<|assistant|>\n[Goodbye.<|end|>]\n",
		"vicuna": "<s>Be brief. USER: Hi ASSISTANT:[ Hello.</s>]USER: Bye ASSISTANT:[ Goodbye.</s>]",
		"zephyr": "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n[Hello.</s>]\n<|user|>\nBye</s>\n<|assistant|>\n[Goodbye.</s>]\n",
	} {
		tm, ok := chat.Named(name)
		require.True(t, ok)
		require.True(t, tm.Marked())
		text, spans, err := tm.Spans(chat.Input{Messages: talk, BOS: "<s>", EOS: "</s>"})
		require.NoError(t, err, name)
		for i := len(spans) - 1; i >= 0; i-- {
			s := spans[i]
			text = text[:s.From] + "[" + text[s.From:s.To] + "]" + text[s.To:]
		}
		require.Equal(t, want, text, name)

		// What is to be answered is the beginning of what was answered.
		r, err := tm.Render(chat.Input{Messages: talk[:2], AddGenerationPrompt: true, BOS: "<s>", EOS: "</s>"})
		require.NoError(t, err)
		whole, spans, err := tm.Spans(chat.Input{Messages: talk, BOS: "<s>", EOS: "</s>"})
		require.NoError(t, err)
		require.Equal(t, whole[:spans[0].From], r.Text, name)

		_, err = tm.Render(chat.Input{Messages: []any{map[string]any{"role": "assistant", "tool_calls": []any{1}}}})
		require.ErrorContains(t, err, "no tool calls", name)
	}
	_, ok := chat.Named("prelude")
	require.False(t, ok)
}

// Of templates with markers, the bytes that transformers' return_assistant_tokens_mask has.
func TestMarkersAreTransformersMask(t *testing.T) {
	var rows []struct {
		Template, Source, Context, Text string
		Spans                           [][2]int
	}
	load(t, "markers.json", &rows)
	_, contexts := material(t)
	for _, row := range rows {
		tm, ok := chat.Named(row.Template)
		if row.Source != "" {
			parsed, err := chat.Parse(row.Source)
			require.NoError(t, err)
			tm, ok = parsed, true
		}
		require.True(t, ok, row.Template)
		name := row.Template + " " + row.Context
		for _, c := range contexts {
			if c.Name != row.Context {
				continue
			}
			text, spans, err := tm.Spans(chat.Input{Messages: c.input(t).Messages, BOS: "<s>", EOS: "</s>"})
			require.NoError(t, err, name)
			require.Equal(t, row.Text, text, name)
			var got [][2]int
			for _, s := range spans {
				if n := len(got); n > 0 && got[n-1][1] == s.From {
					got[n-1][1] = s.To
				} else {
					got = append(got, [2]int{s.From, s.To})
				}
			}
			require.ElementsMatch(t, row.Spans, got, name)
		}
	}
	require.Greater(t, len(rows), 100)
}
