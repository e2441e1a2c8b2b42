package chat_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/train/data/chat"
)

func BenchmarkChat(b *testing.B) {
	templates, contexts := material(b)
	for _, tm := range templates {
		switch tm.Name {
		case "Qwen-Qwen3-0.6B", "meta-llama-Llama-3.1-8B-Instruct", "openai-gpt-oss-120b", "ollama-07-chatml":
		default:
			continue
		}
		parsed, err := chat.Parse(tm.Source)
		require.NoError(b, err)
		for _, c := range contexts {
			if c.Name != "turns-closed" {
				continue
			}
			in := c.input(b)
			b.Run("render/"+tm.Name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, err := parsed.Render(in)
					require.NoError(b, err)
				}
			})
			b.Run("spans/"+tm.Name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, _, err := parsed.Spans(in)
					require.NoError(b, err)
				}
			})
		}
	}
}
