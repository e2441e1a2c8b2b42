package chat_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/chat"
)

var update = flag.Bool("update", false, "write testdata/spans.txt")

// What a template shows of each conversation that it renders: the text of every answer is within a span of its own, that of no question within any.
// spans.txt lists what is found for each template, or refused.
func TestSpansOfTheMaterial(t *testing.T) {
	templates, contexts := material(t)
	var report strings.Builder
	for _, tm := range templates {
		parsed, err := chat.Parse(tm.Source)
		require.NoError(t, err)
		found, prefixes, aligned, refused := 0, 0, 0, []string{}
		for _, c := range contexts {
			in := c.input(t)
			in.AddGenerationPrompt, in.ContinueFinalMessage = false, false
			if _, err := parsed.Render(in); err != nil {
				continue
			}
			text, spans, err := parsed.Spans(in)
			if err != nil {
				require.ErrorIs(t, err, chat.ErrNoSpans)
				require.ErrorIs(t, err, tensor.ErrUnsupported)
				require.Contains(t, hint.Of(err), "--mask-prompt=false")
				refused = append(refused, c.Name)
				continue
			}
			found++
			p, a := parsed.Ways(in)
			require.Equal(t, len(spans), p+a, "%s %s", tm.Name, c.Name)
			prefixes, aligned = prefixes+p, aligned+a
			checkSpans(t, tm.Name+" "+c.Name, c, text, spans)
			if c.Name == "turns" {
				fmt.Fprintf(&report, "%s\n", tm.Name)
				for _, s := range spans {
					fmt.Fprintf(&report, "    %q [%q] %q\n", text[max(0, s.From-40):s.From], text[s.From:s.To], text[s.To:min(len(text), s.To+20)])
				}
			}
		}
		fmt.Fprintf(&report, "%s: %d conversations; %d turns by prefixes, %d by alignment; refused: %s\n", tm.Name, found, prefixes, aligned, strings.Join(refused, " "))
	}
	if *update {
		require.NoError(t, os.WriteFile("testdata/spans.txt", []byte(report.String()), 0o644))
	}
	want, err := os.ReadFile("testdata/spans.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), report.String())
}

func checkSpans(t *testing.T, name string, c context, text string, spans []chat.Span) {
	var raw []struct {
		Role    string `json:"role"`
		Content any    `json:"content"`
	}
	require.NoError(t, json.Unmarshal(c.Messages, &raw))
	end, n := 0, 0
	for _, s := range spans {
		require.GreaterOrEqual(t, s.From, end, name)
		require.Greater(t, s.To, s.From, name)
		require.LessOrEqual(t, s.To, len(text), name)
		require.True(t, utf8.ValidString(text[s.From:s.To]), name)
		end = s.To
	}
	for _, m := range raw {
		content, _ := m.Content.(string)
		content = strings.TrimSpace(content)
		switch m.Role {
		case "assistant":
			if n == len(spans) {
				require.Empty(t, content, name)
				continue
			}
			last := content[strings.LastIndexByte(content, '\n')+1:]
			if !strings.Contains(text, last) || strings.Contains(text[spans[n].From:spans[n].To], last) {
				n++
				continue
			}
			require.Empty(t, content, "%s: %q", name, text[spans[n].From:spans[n].To])
		case "user":
			for _, s := range spans {
				// What the conversation "unicode" says is the same in all its messages.
				if len(content) > 3 && c.Name != "unicode" {
					require.NotContains(t, text[s.From:s.To], content, name)
				}
			}
		}
	}
	require.Equal(t, len(spans), n, name)
}

const marked = `{% for m in messages %}{% if m.role == 'assistant' %}<a>{% generation %}{{ m.content }}<e>{% endgeneration %}
{% else %}<u>{{ m.content }}<e>
{% endif %}{% endfor %}`

func talk(pairs ...string) []any {
	var all []any
	for i, s := range pairs {
		all = append(all, map[string]any{"role": []string{"user", "assistant"}[i%2], "content": s})
	}
	return all
}

func TestMarkersSayWhatIsGenerated(t *testing.T) {
	tm, err := chat.Parse(marked)
	require.NoError(t, err)
	require.True(t, tm.Marked())
	text, spans, err := tm.Spans(chat.Input{Messages: talk("é?", "ü!", "b", "c")})
	require.NoError(t, err)
	require.Equal(t, "<u>é?<e>\n<a>ü!<e><u>b<e>\n<a>c<e>", text)
	require.Equal(t, []chat.Span{{13, 19}, {30, 34}}, spans)
	require.Equal(t, "ü!<e>", text[13:19])

	r, err := tm.Render(chat.Input{Messages: talk("a")})
	require.NoError(t, err)
	require.NotNil(t, r.Generated)
	require.Empty(t, r.Generated)
}

// Markers within a macro cannot be placed, so the turns are found as in a template without.
func TestMarkersWithinAMacro(t *testing.T) {
	tm, err := chat.Parse("{% macro say(m) %}{% generation %}{{ m.content }}</s>{% endgeneration %}{% endmacro %}" +
		"{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{{ say(m) }}{% else %}{{ m.content }}{% endif %}{% endfor %}" +
		"{% if add_generation_prompt %}<assistant>{% endif %}")
	require.NoError(t, err)
	text, spans, err := tm.Spans(chat.Input{Messages: talk("a", "b")})
	require.NoError(t, err)
	require.Equal(t, "<user>a<assistant>b</s>", text)
	require.Equal(t, []chat.Span{{18, 23}}, spans)
}

func TestWhatCannotBeShownIsRefused(t *testing.T) {
	for name, source := range map[string]string{
		"not printed":     "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
		"always prompted": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:",
		"turned around":   "{% for m in messages | reverse %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
	} {
		tm, err := chat.Parse(source)
		require.NoError(t, err)
		_, _, err = tm.Spans(chat.Input{Messages: talk("What is it like?", "It is like that.", "And otherwise?", "Otherwise not.")})
		require.True(t, errors.Is(err, chat.ErrNoSpans), "%s: %v", name, err)
		require.Contains(t, hint.Of(err), "{% generation %}", name)
	}
}

// Turns are looked for by rendering once for each, which a conversation of very many would make long. Markers have no such bound.
func TestManyMessages(t *testing.T) {
	many := talk(make([]string, 20_000)...)
	tm, ok := chat.Named("chatml")
	require.True(t, ok)
	_, spans, err := tm.Spans(chat.Input{Messages: many})
	require.NoError(t, err)
	require.Len(t, spans, 10_000)

	plain, err := chat.Parse("{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}")
	require.NoError(t, err)
	_, _, err = plain.Spans(chat.Input{Messages: many})
	require.ErrorIs(t, err, chat.ErrNoSpans)
	_, _, err = plain.Spans(chat.Input{Messages: many[:1000]})
	require.NoError(t, err)
}
