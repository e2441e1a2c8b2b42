package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// chatTemplates have no place for anything but turns; some of them are not sound.
var chatTemplates = map[string]string{
	"good":       `{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}`,
	"marked":     `{{ bos_token }}{% for m in messages %}[{{ m.role }}] {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}`,
	"no end":     `{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}`,
	"two BOS":    `{{ bos_token }}{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}`,
	"no system":  `{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}[{{ m.role }}] {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}`,
	"no content": `{{ bos_token }}{% for m in messages %}[{{ m.role }}]{% endfor %}`,
	"broken":     `{% for m in messages %}`,
	"raises":     `{{ raise_exception('never') }}`,
}

func gz(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

const (
	chatRow   = `{"messages": [{"role": "user", "content": "Who is Lily?"}, {"role": "assistant", "content": "A little girl."}]}` + "\n"
	systemRow = `{"messages": [{"role": "system", "content": "Tell stories."}, {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Lily."}]}` + "\n"
)

// Every layout of rows, in a format each, is shown with what is trained of it.
func TestDataCheck(t *testing.T) {
	dir := workspace(t)
	model := filepath.Join(dir, "stories260K")
	template := filepath.Join(dir, "template.jinja")
	require.NoError(t, os.WriteFile(template, []byte(chatTemplates["good"]), 0o644))
	chats, err := os.ReadFile("../../train/data/records/testdata/datasets.parquet")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		file, text string
		chat       bool
		examples   int
		says       []string
	}{
		"text":     {"a.jsonl", `{"text": "Once upon a time"}`, false, 1, []string{"‹<s>›⟦Once upon a time‹</s>›⟧", "ok    end of text        1 of 1 (100%) examples end with a special token"}},
		"pair":     {"a.csv", "prompt,completion\nOnce upon,\" a time \"\"so\"\"\"\n", false, 1, []string{"‹<s>›Once upon⟦ a time \"so\"‹</s>›⟧"}},
		"alpaca":   {"a.json", `[{"instruction": "Name a girl.", "input": "", "output": "Lily"}]`, false, 1, []string{"### Instruction:\nName a girl.\n\n### Response:⟦Lily‹</s>›⟧"}},
		"sharegpt": {"a.jsonl.gz", gz(t, `{"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Lily."}]}`), true, 1, []string{"[user] Who?[assistant]", "Lily.‹</s>›⟧", "turns of gpt 1, human 1", "found by rendering the chat"}},
		"messages": {"a.parquet", string(chats), true, 30, []string{"example 3 of 30: ", "ok    system turns       the template has a place for them"}},
		"plain":    {"a.txt", strings.Repeat("Once upon a time ", 10), false, 1, []string{"plain text in UTF-8", "⟦Once upon a time"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), c.file)
			require.NoError(t, os.WriteFile(path, []byte(c.text), 0o644))
			args := []string{"data", "check", "--model", model, "--data", path}
			if c.chat {
				args = append(args, "--chat-template", template)
			}
			out := nibble(t, args...)
			for _, s := range c.says {
				require.Contains(t, out.stdout, s)
			}
			require.NotContains(t, out.stdout, "\x1b")

			var r dataCheckResult
			o := nibble(t, append(args, "--json", "--show", "1")...)
			require.NoError(t, json.Unmarshal([]byte(o.stdout), &r))
			require.Equal(t, out.code, o.code)
			require.Len(t, r.Examples, 1)
			require.Len(t, r.Files, 1)
			require.Equal(t, c.examples, r.Files[0].Examples)
			var text strings.Builder
			for _, s := range r.Examples[0].Text {
				text.WriteString(s.Text)
			}
			require.NotEmpty(t, text.String())
			var sum int64
			for _, l := range r.Lengths {
				sum += l.Tokens
			}
			require.Equal(t, int64(c.examples), sum)
			require.Equal(t, exitDone, o.code, o.stdout)
			require.Zero(t, r.Failed)
		})
	}
}

// failedCheck returns the first check that failed.
func failedCheck(t *testing.T, r dataCheckResult) finding {
	t.Helper()
	for _, c := range r.Checks {
		if c.Status == failed {
			return c
		}
	}
	return finding{}
}

// The doctor finds each disease.
func TestDataCheckFindings(t *testing.T) {
	dir := workspace(t)
	model := filepath.Join(dir, "stories260K")
	for name, c := range map[string]struct {
		template, text string
		args           []string
		check, status  string
		says           string
	}{
		"sound":             {"good", chatRow + systemRow, nil, "system turns", passed, "has a place"},
		"marked":            {"marked", chatRow, nil, "assistant's turns", passed, "{% generation %}"},
		"no template":       {"", chatRow, nil, "chat template", failed, "has none, and the rows are chats"},
		"broken template":   {"broken", chatRow, nil, "chat template", failed, ""},
		"raises":            {"raises", chatRow, nil, "chat template", failed, "never"},
		"no content":        {"no content", chatRow, nil, "chat template", failed, "not in what it makes"},
		"not needed":        {"", `{"text": "Once"}`, nil, "chat template", passed, "these rows need none"},
		"no end":            {"no end", chatRow, nil, "end of text", failed, "none of 1"},
		"ends":              {"good", chatRow, nil, "end of text", passed, "1 of 1"},
		"two BOS":           {"two BOS", chatRow, nil, "double BOS", warned, "1 of 1"},
		"system, none":      {"no system", chatRow, nil, "system turns", passed, "no row has one"},
		"system":            {"no system", chatRow + systemRow, nil, "system turns", failed, "1 of 2 (50%) rows have one"},
		"duplicates":        {"good", chatRow + systemRow + chatRow, nil, "duplicates", warned, "1 of 3 (33.3%) rows are there before, first "},
		"empty completion":  {"", `{"prompt": "a", "completion": ""}`, nil, "completions", warned, "1 of 1 (100%) rows have an empty answer"},
		"empty turn":        {"good", strings.ReplaceAll(chatRow, "A little girl.", ""), nil, "completions", warned, "first "},
		"strange role":      {"good", chatRow + strings.ReplaceAll(systemRow, "system", "narrator"), nil, "roles", warned, "narrator 1"},
		"truncated":         {"", `{"text": "Once upon a time there was a girl"}` + "\n" + `{"text": "Lily"}`, []string{"--max-seq-length", "6"}, "length", warned, "1 of 2 (50%) examples have more than 6 tokens"},
		"dropped":           {"", `{"text": "Once upon a time there was a girl"}` + "\n" + `{"text": "Lily"}`, []string{"--max-seq-length", "6", "--overlong", "drop"}, "length", warned, "1 of 2 (50%)"},
		"nothing trained":   {"", `{"prompt": "Once upon a time there was a girl", "completion": " Lily"}`, []string{"--max-seq-length", "4"}, "examples", failed, "no token to train on"},
		"not JSON":          {"", `{"text": "Once"}` + "\nLily\n", nil, "rows", failed, "data.jsonl:2: malformed input: not JSON: Lily"},
		"not UTF-8":         {"", "{\"text\": \"\xff\"}", nil, "rows", failed, "UTF-8"},
		"unknown shape":     {"", `{"a": 1}`, nil, "examples", failed, "neither a text"},
		"strange language":  {"", `{"text": "日本語の物語"}`, nil, "vocabulary", warned, "single bytes"},
		"familiar language": {"", `{"text": "Once upon a time\nthere was"}`, nil, "vocabulary", passed, "none of"},
	} {
		t.Run(name, func(t *testing.T) {
			sub := t.TempDir()
			path := filepath.Join(sub, "data.jsonl")
			require.NoError(t, os.WriteFile(path, []byte(c.text), 0o644))
			args := append([]string{"data", "check", "--model", model, "--data", path, "--json"}, c.args...)
			if c.template != "" {
				file := filepath.Join(sub, "template")
				require.NoError(t, os.WriteFile(file, []byte(chatTemplates[c.template]), 0o644))
				args = append(args, "--chat-template", file)
			}
			o := nibble(t, args...)
			var r dataCheckResult
			require.NoError(t, json.Unmarshal([]byte(o.stdout), &r), o.stderr)
			var found finding
			for _, f := range r.Checks {
				if f.Name == c.check {
					found = f
				}
			}
			require.Equal(t, c.status, found.Status, "%+v", r.Checks)
			require.Contains(t, found.Found, c.says)
			require.Equal(t, c.status == passed, found.Todo == "", "%+v", found)
			want := exitDone
			if r.Failed > 0 {
				want = exitInput
				require.Contains(t, o.stderr, "not ready to train on: ")
				require.Contains(t, o.stderr, failedCheck(t, r).Name)
			}
			require.Equal(t, want, o.code)
			require.Equal(t, c.status == failed, r.Failed > 0)
			if c.status == warned {
				require.Positive(t, r.Warnings)
			}
		})
	}
}

func TestDataCheckUsage(t *testing.T) {
	dir := workspace(t)
	model, rows := filepath.Join(dir, "stories260K"), filepath.Join(dir, "a.jsonl")
	require.NoError(t, os.WriteFile(rows, []byte(`{"text": "Once"}`), 0o644))
	for _, c := range []struct {
		code int
		args []string
	}{
		{exitUsage, nil},
		{exitUsage, []string{"--data", rows}},
		{exitUsage, []string{"--data", rows, "--model", model, "--show", "-1"}},
		{exitUsage, []string{"--data", rows, "--model", model, "--max-seq-length", "1"}},
		{exitUsage, []string{"--data", rows, "--model", model, "--data-format", "x"}},
		{exitFailed, []string{"--data", rows + "x", "--model", model}},
		{exitFailed, []string{"--data", rows, "--model", model + "x"}},
		{exitFailed, []string{"--data", rows, "--model", model, "--chat-template", rows + "x"}},
		{exitInput, []string{"--data", dir, "--model", model}},
		{exitDone, []string{"--data", rows, "--data", rows, "--model", model, "--show", "0"}},
	} {
		o := nibble(t, append([]string{"data", "check"}, c.args...)...)
		require.Equal(t, c.code, o.code, "%v\n%s%s", c.args, o.stdout, o.stderr)
	}
}

// On a terminal what is trained is green and nothing of the text is obeyed.
func TestShownExample(t *testing.T) {
	e := shownExample{Text: []segment{{"<s>", false, true}, {"Who\x1b[31m?\n", false, false}, {"Lily", true, false}, {"</s>", true, true}}}
	var b strings.Builder
	e.write(&b, true)
	require.Equal(t, "\x1b[2m\x1b[7m<s>\x1b[0m\x1b[2mWho\ufffd[31m?\n\x1b[0m\x1b[32mLily\x1b[0m\x1b[32m\x1b[7m</s>\x1b[0m\n", b.String())
	b.Reset()
	e.write(&b, false)
	require.Equal(t, "‹<s>›Who\ufffd[31m?\n⟦Lily‹</s>›⟧\n", b.String())

	require.Equal(t, "", textBar(0, 10, 10))
	require.Equal(t, "▏", textBar(1, 1000, 10))
	require.Equal(t, "██████████", textBar(10, 10, 10))
	require.Equal(t, "█████▌", textBar(11, 20, 10))
	c := counts{}
	for _, n := range []int{0, 16, 17, 32, 33, 5000} {
		c.bucket(n).Tokens++
	}
	require.Equal(t, []lengthCount{{0, 16, 2, 0}, {17, 32, 2, 0}, {33, 64, 1, 0}, {4097, 8192, 1, 0}}, c.list())
	require.True(t, isInputError(hint.Add(tensor.ErrMalformed, "x")))
}
