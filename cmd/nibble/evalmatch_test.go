package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		pattern, text, want string
		ok                  bool
	}{
		{"gsm8k", "so 9 * 2 = 18\n#### 18", "18", true},
		{"gsm8k", "#### -1,234.50 dollars", "-1234.50", true},
		{"gsm8k", "####$5.", "5", true},
		{"gsm8k", "#### 1\n#### 2", "1", true},
		{"gsm8k", "the answer is 18", "", false},
		{"gsm8k", "#### none", "", false},
		{"sql", " SELECT  a\nFROM b ;\n", "SELECT a FROM b", true},
		{"sql", "", "", true},
		{"text", " a  b\n", "a  b", true},
		{`answer: (\w+)`, "the answer: yes, it is", "yes", true},
		{`[0-9]+`, "of 12 and 13", "12", true},
		{`[0-9]+`, "none", "", false},
	} {
		f, name, err := (&matchOptions{pattern: c.pattern}).extractor("")
		require.NoError(t, err)
		require.Equal(t, c.pattern, name)
		got, ok := f(c.text)
		require.Equal(t, c.ok, ok, "%s %q", c.pattern, c.text)
		require.Equal(t, c.want, got, "%s %q", c.pattern, c.text)
	}
	for first, want := range map[string]string{"a\n#### 3": "gsm8k", "a": "text"} {
		_, name, err := (&matchOptions{}).extractor(first)
		require.NoError(t, err)
		require.Equal(t, want, name)
	}
	_, _, err := (&matchOptions{pattern: "("}).extractor("")
	require.ErrorContains(t, err, "--match-pattern")
}

// The share of rows whose completion is what the model writes.
func TestEvalMatch(t *testing.T) {
	dir := workspace(t)
	model := filepath.Join(dir, "stories260K")
	prompts := []string{"Once upon a time", "Tom had a dog.", "The sun"}
	var rows, texts []string
	for i, p := range prompts {
		var g generateResult
		okJSON(t, &g, "generate", "--model", model, "--prompt", p, "--max-tokens", "12")
		completion := g.Text
		if i == 1 {
			completion = "nothing of the kind"
		}
		texts = append(texts, g.Text)
		line, err := json.Marshal(map[string]string{"prompt": p, "completion": completion})
		require.NoError(t, err)
		rows = append(rows, string(line))
	}
	file := filepath.Join(dir, "test.jsonl")
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(rows, "\n")), 0o644))

	var r matchResult
	okJSON(t, &r, "eval", "--model", model, "--data", dir, "--match", "--max-tokens", "12", "--show", "2")
	require.Equal(t, "text", r.Pattern)
	require.Equal(t, []int{3, 2, 3, 36}, []int{r.Rows, r.Matches, r.Cut, r.Tokens})
	require.InDelta(t, 2.0/3, r.Share, 1e-12)
	require.Len(t, r.Shown, 2)
	require.Equal(t, matchRow{Line: 2, Prompt: prompts[1], Text: texts[1], Want: "nothing of the kind", Got: strings.TrimSpace(texts[1])}, r.Shown[1])
	require.True(t, r.Shown[0].Match)

	// The first word is all that counts, and the first is where a continuation ends.
	word := strings.Fields(texts[0])[0]
	okJSON(t, &r, "eval", "--model", model, "--data", file, "--match", "--max-tokens", "12", "--match-pattern", `\w+`, "--match-stop", word, "--max-rows", "1", "--show", "1")
	require.Equal(t, []int{1, 0, 0, 1}, []int{r.Rows, r.Matches, r.Cut, r.NoAnswer})
	require.NotContains(t, r.Shown[0].Text, word)

	out := ok(t, "eval", "--model", model, "--data", file, "--match", "--max-tokens", "12", "--show", "3")
	require.Contains(t, out, "2 of 3 match (66.67 %), by text")
	require.Contains(t, out, "line 2 differs")
	require.Contains(t, out, "want    nothing of the kind")

	// In another format or layout the same rows have the same figures.
	var objects, chats []string
	table := [][]string{{"prompt", "completion"}}
	for i, row := range rows {
		var o struct{ Prompt, Completion string }
		require.NoError(t, json.Unmarshal([]byte(row), &o))
		table = append(table, []string{o.Prompt, o.Completion})
		objects = append(objects, strings.ReplaceAll(row, `"completion"`, `"response"`))
		instruction, err := json.Marshal(o.Prompt)
		require.NoError(t, err)
		answer, err := json.Marshal(strings.TrimSpace(texts[i]))
		require.NoError(t, err)
		chats = append(chats, fmt.Sprintf(`{"conversations": [{"from": "human", "value": %s}, {"from": "gpt", "value": %s}]}`, instruction, answer))
	}
	for name, text := range map[string]string{
		"a.csv": separated(t, table, ','), "a.tsv": separated(t, table, '\t'), "a.jsonl.gz": gz(t, strings.Join(rows, "\n")),
		"a.json": "[" + strings.Join(objects, ",\n") + "]",
	} {
		put(t, filepath.Join(dir, name), text)
		var other matchResult
		okJSON(t, &other, "eval", "--model", model, "--data", filepath.Join(dir, name), "--match", "--max-tokens", "12", "--show", "2")
		require.Equal(t, []int{3, 2, 3, 36}, []int{other.Rows, other.Matches, other.Cut, other.Tokens}, name)
		require.Equal(t, texts[1], other.Shown[1].Text)
	}

	// Of a chat the last answer is asked for, as the template asks: here by nothing, so
	// that it is what the prompts above have.
	put(t, filepath.Join(dir, "chats.json"), "["+strings.Join(chats, ",")+"]")
	put(t, filepath.Join(dir, "bare.jinja"), "{% for m in messages %}{{ m.content }}{% endfor %}")
	var c matchResult
	okJSON(t, &c, "eval", "--model", model, "--data", filepath.Join(dir, "chats.json"), "--chat-template", filepath.Join(dir, "bare.jinja"), "--match", "--max-tokens", "12")
	require.Equal(t, []int{3, 3, 36}, []int{c.Rows, c.Matches, c.Tokens})

	for _, args := range [][]string{
		{"--show", "1"}, {"--match", "--max-tokens", "0"}, {"--match", "--kl-base", model}, {"--match", "--match-pattern", "("},
	} {
		o := nibble(t, append([]string{"eval", "--model", model, "--data", file}, args...)...)
		require.Equal(t, exitUsage, o.code, "%v: %s", args, o.stderr)
	}
	o := nibble(t, "eval", "--model", model, "--data", file, "--match", "--match-pattern", "gsm8k")
	require.NotEqual(t, exitDone, o.code)
	require.Contains(t, o.stderr, "test.jsonl:1")
	require.Contains(t, o.stderr, "no answer by gsm8k")
}

// separated are rows as CSV, or as TSV.
func separated(t *testing.T, rows [][]string, comma rune) string {
	t.Helper()
	var b strings.Builder
	w := csv.NewWriter(&b)
	w.Comma = comma
	require.NoError(t, w.WriteAll(rows))
	return b.String()
}
