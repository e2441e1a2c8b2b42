package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tinyChat is a template without markers, for models that have none.
const tinyChat = `{% for m in messages %}{{ m.role }}:{{ '\n' }}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}` +
	`{% if add_generation_prompt %}assistant:{{ '\n' }}{% endif %}`

// chatRows are chats about n animals, as a list.
func chatRows(n int) string {
	var b []string
	for i := range n {
		name := []string{"dog", "cat", "bird", "fish"}[i%4]
		b = append(b, fmt.Sprintf(`{"conversations": [{"from": "human", "value": "Who is %d?"}, {"from": "gpt", "value": "A %s."}, {"from": "human", "value": "Is it big?"}, {"from": "gpt", "value": "The %s is."}]}`, i, name, name))
	}
	return "[" + strings.Join(b, ",\n") + "]"
}

// TestTrainOnChats takes chats through training and evaluation, packed and not, a part of
// them split off, with other data beside them.
func TestTrainOnChats(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	at := func(name string) string { return filepath.Join(dir, name) }
	put(t, at("chats.json"), chatRows(30))
	put(t, at("chat.jinja"), tinyChat)
	run := func(out string, more ...string) (trainResult, string) {
		t.Helper()
		args := append([]string{"train", "--model", at("stories260K"), "--output-dir", at(out), "--data", at("chats.json"), "--chat-template", at("chat.jinja"),
			"--epochs", "2", "--batch-size", "2", "--max-seq-length", "128", "--rank", "2", "--learning-rate", "1e-2"}, more...)
		o := nibble(t, append(args, "--json")...)
		require.Equal(t, exitDone, o.code, o.stderr)
		var r trainResult
		lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
		require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &r))
		return r, o.stderr
	}
	plain, notes := run("plain", "--val-split", "0.2")
	require.Contains(t, notes, `chat rows: messages from "conversations"`)
	require.Contains(t, notes, "6 examples are split off for validation, 24 are left")
	require.Equal(t, 24, plain.Steps)
	require.Less(t, *plain.Eval, *plain.FirstEval-0.5)

	packed, notes := run("packed", "--val-split", "6", "--packing", "--overlong", "drop")
	require.Contains(t, notes, "packed into ")
	require.Less(t, packed.Steps, 24)
	require.Equal(t, plain.NumTokens, packed.NumTokens, "the same tokens are trained")
	require.InDelta(t, *plain.FirstEval, *packed.FirstEval, 1e-9)

	_, notes = run("named", "--chat-template", "chatml", "--epochs", "0.2")
	require.Contains(t, notes, "chat rows")

	_, notes = run("mixed", "--data", at("data/train.jsonl:0.34"), "--mask-history")
	require.Contains(t, notes, "an epoch has 33 examples")

	// Evaluation scores the same tokens: the assistant's.
	var all, last struct {
		Loss   float64 `json:"loss"`
		Tokens int     `json:"tokens"`
	}
	eval := []string{"eval", "--model", at("stories260K"), "--data", at("chats.json"), "--chat-template", at("chat.jinja")}
	okJSON(t, &all, eval...)
	okJSON(t, &last, append(eval, "--mask-history")...)
	require.Less(t, last.Tokens, all.Tokens)
	whole, _ := run("whole", "--epochs", "1")
	require.Equal(t, int64(all.Tokens), whole.NumTokens)
	put(t, at("two.jsonl"), `{"text": "Once upon a time"}`+"\n"+`{"text": "Once"}`)
	require.Contains(t, ok(t, "eval", "--model", at("stories260K"), "--data", at("two.jsonl"), "--max-seq-length", "4", "--overlong", "drop"), "left out          1 examples that were longer")
	okJSON(t, &last, append(eval, "--mask-prompt=false")...)
	require.Greater(t, last.Tokens, all.Tokens)

	o := nibble(t, "train", "--model", at("stories260K"), "--data", at("chats.json"), "--output-dir", at("none"))
	require.Equal(t, exitInput, o.code)
	require.Contains(t, o.stderr, "chats.json:1: unsupported input: a chat, and the model has no chat template")
	require.Contains(t, o.stderr, "--chat-template")
	require.NoDirExists(t, at("none"))
}

// TestResumeWithOtherData refuses to go on with data that is not what it was.
func TestResumeWithOtherData(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	ok(t, trainIn(dir, "out", "--iters", "4")...)
	file := filepath.Join(dir, "data/train.jsonl")
	text := readFile(t, file)
	put(t, file, strings.Replace(text, "said hello", "said hallo", 1))
	resume := trainIn(dir, "out", "--resume", filepath.Join(dir, "out"))
	o := nibble(t, resume...)
	require.NotEqual(t, exitDone, o.code)
	require.Contains(t, o.stderr, "train.jsonl: ")
	require.Contains(t, o.stderr, "resume with the data and the settings of the first run")
	put(t, file, text)
	o = nibble(t, append(resume, "--mask-prompt=false")...)
	require.NotEqual(t, exitDone, o.code)
	require.Contains(t, o.stderr, "what is trained of them")
	ok(t, resume...)
}

func TestBadDataFlags(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	for says, args := range map[string][]string{
		`--data-format is "csv", want one of: text, pair, alpaca, chat`: {"--data-format", "csv"},
		`--overlong is "cut", want one of: truncate, drop, error`:       {"--overlong", "cut"},
		`--packing is "wrapped", want one of: none, bfd`:                {"--packing=wrapped"},
		"--val-split is -1":              {"--val-split", "-1"},
		"--chat-template-kwargs":         {"--chat-template-kwargs", "{"},
		"the model has no chat template": {"--apply-chat-template"},
		`--separator`:                    {"--separator", `\q`},
		"a weight of -1":                 {"--data", filepath.Join(dir, "data:-1")},
		`"x" is not a weight`:            {"--data", filepath.Join(dir, "data:x")},
	} {
		o := nibble(t, trainIn(dir, "out", args...)...)
		require.Equal(t, exitUsage, o.code, "%v\n%s", args, o.stderr)
		require.Contains(t, o.stderr, says)
	}
	o := nibble(t, trainIn(dir, "out", "--chat-template", "none.jinja")...)
	require.Equal(t, exitFailed, o.code)
	require.Contains(t, o.stderr, "give a file, or one of: ")
	require.Contains(t, o.stderr, "chatml")
}
