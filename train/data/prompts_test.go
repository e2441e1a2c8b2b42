package data_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
	"github.com/stretchr/testify/require"
)

// askedChat is a template that asks for an answer.
const askedChat = `{{ bos_token }}{% for m in messages %}{{ m.role + ':\n' + m.content + (eos_token if m.role == 'assistant' else '') + '\n' }}{% endfor %}` +
	`{% if add_generation_prompt %}assistant:` + "\n" + `{% endif %}`

// prompts collects what is read up to the first error.
func prompts(path string, o data.Options, mark string) (out []data.Prompt, err error) {
	for p, err := range data.Prompts(path, o, mark) {
		if err != nil {
			return out, err
		}
		out = append(out, p)
	}
	return out, nil
}

// A row is asked with the tokens that stand before what is trained of it.
func TestPromptsAreWhatTrainingHas(t *testing.T) {
	tok := stories(t)
	for name, c := range map[string]struct {
		file, row    string
		change       func(*data.Options)
		text, answer string
	}{
		"pair":      {"a.jsonl", `{"prompt": "Once", "completion": " upon</s>"}`, nil, "Once", " upon"},
		"separator": {"a.jsonl", `{"question": "Who?", "answer": "Lily."}`, func(o *data.Options) { o.Separator = "\n" }, "Who?\n", "Lily."},
		"fields":    {"a.csv", "q,a\n\"Who, then?\n\",Lily.\n", func(o *data.Options) { o.Fields = data.Fields{Prompt: "q", Completion: "a"} }, "Who, then?\n", "Lily."},
		"unmasked":  {"a.tsv", "prompt\tcompletion\nOnce \tupon\n", func(o *data.Options) { o.Mask = data.NoMask }, "Once ", "upon"},
		"alpaca":    {"a.json", "[{\"instruction\": \"Sing.\", \"input\": \"La\",\n \"output\": \"Lala\"}]", nil, fmt.Sprintf(alpacaLong, "Sing.", "La"), "Lala"},
		"applied": {"a.jsonl", `{"instruction": "Sing.", "output": "Lala"}`, func(o *data.Options) { o.ApplyTemplate = true },
			"<s>user:\nSing.\nassistant:\n", "Lala"},
		"chat": {"a.json", `[{"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Lily."}, {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}]`, nil,
			"<s>user:\nWho?\nassistant:\nLily.</s>\nuser:\nWhy?\nassistant:\n", "So."},
		"turns": {"a.jsonl", `{"prompt": [{"role": "user", "content": "Who?"}], "completion": [{"role": "assistant", "content": "Lily."}]}`, nil,
			"<s>user:\nWho?\nassistant:\n", "Lily."},
		"system": {"a.jsonl", `{"system": "Be brief.", "messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Lily."}, {"role": "user", "content": "Oh."}]}`, nil,
			"<s>system:\nBe brief.\nuser:\nWho?\nassistant:\n", "Lily."},
	} {
		t.Run(name, func(t *testing.T) {
			o := data.Options{Tokenizer: tok, MaxSeqLength: 400, Template: parseTemplate(t, askedChat), ParseSpecial: true}
			if c.change != nil {
				c.change(&o)
			}
			path := write(t, c.file, c.row)
			got, err := prompts(path, o, "")
			require.NoError(t, err)
			require.Len(t, got, 1)
			p := got[0]
			require.Equal(t, []string{c.text, c.answer, path}, []string{p.Text, p.Answer, p.Path})
			require.Equal(t, fmt.Sprintf("%s:%d", path, p.Line), p.Where)
			require.Equal(t, p.Text[:3] == "<s>", p.Chat)
			require.Equal(t, map[bool]string{true: " "}[name == "unmasked"], p.Rest)
			o.Mask, o.MaskHistory = data.MaskDefault, p.Chat
			set, err := data.Open(path, o)
			require.NoError(t, err)
			defer set.Close()
			e, err := set.Train.Example(0)
			require.NoError(t, err)
			require.Equal(t, e.Tokens[:slices.Index(e.Loss, true)], p.Tokens)
		})
	}
}

func TestPromptsOfFolders(t *testing.T) {
	dir := t.TempDir()
	o := data.Options{Tokenizer: stories(t), MaxSeqLength: 100}
	put := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	_, err := prompts(dir, o, "")
	require.ErrorIs(t, err, fs.ErrNotExist)
	for _, name := range []string{"train.jsonl", "dev.csv", "test-00000-of-00002.jsonl", "test-00001-of-00002.jsonl"} {
		text := fmt.Sprintf("{\"prompt\": %q, \"completion\": \"x\"}\n\n", name)
		if name == "dev.csv" {
			text = "prompt,completion\n" + name + ",x\n"
		}
		put(name, text)
		got, err := prompts(dir, o, "")
		if name == "test-00000-of-00002.jsonl" {
			require.ErrorContains(t, err, "is missing")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, name, got[len(got)-1].Text)
		require.Equal(t, name[:4] == "test", len(got) == 2)
	}
	// Test data needs nothing to train on.
	require.NoError(t, os.Remove(filepath.Join(dir, "train.jsonl")))
	got, err := prompts(dir, o, "")
	require.NoError(t, err)
	require.Len(t, got, 2)

	for range data.Prompts(dir, o, "") {
		break // who has seen enough is not asked again
	}
}

func TestPromptsThatCannotBe(t *testing.T) {
	o := data.Options{Tokenizer: open(t, noBOS), MaxSeqLength: 100}
	good := `{"text": "A: x\nA: y"}` + "\n"
	got, err := prompts(write(t, "a.jsonl", good), o, "A: ")
	require.NoError(t, err)
	require.Equal(t, []string{"A: x\nA: ", "y"}, []string{got[0].Text, got[0].Answer})

	chat := func(turns string) string { return `{"messages": [` + turns + `]}` }
	for name, c := range map[string]struct {
		file, text, mark, says string
		is                     error
	}{
		"no mark":     {"a.jsonl", good, "", "a.jsonl:1: malformed input: the row is one text", tensor.ErrMalformed},
		"other mark":  {"a.jsonl", good + `{"text": "x"}`, "A: ", `a.jsonl:2: malformed input: "A: " is not in the text`, tensor.ErrMalformed},
		"plain text":  {"a.txt", "x", "A: ", "plain text has no prompts", tensor.ErrUnsupported},
		"empty":       {"a.jsonl", `{"prompt": "", "completion": "x"}`, "", "the prompt is empty", tensor.ErrMalformed},
		"other keys":  {"a.jsonl", `{"prompt": "x"}`, "", "a prompt without a completion", tensor.ErrMalformed},
		"no rows":     {"a.jsonl", "\n", "", "the file is empty", tensor.ErrMalformed},
		"later row":   {"a.jsonl", `{"prompt": "x", "completion": "y"}` + "\n" + `{"text": "x"}`, "", `a.jsonl:2: malformed input: no "prompt"`, tensor.ErrMalformed},
		"no answer":   {"a.jsonl", chat(`{"role": "user", "content": "x"}`), "", "the assistant has no turn", tensor.ErrMalformed},
		"no question": {"a.jsonl", chat(`{"role": "assistant", "content": "x"}`), "", "no turn before the assistant's", tensor.ErrMalformed},
		"a call":      {"a.jsonl", chat(`{"role": "user", "content": "x"}, {"role": "assistant", "content": null}`), "", "is not a text", tensor.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			o.Template = parseTemplate(t, `{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}`)
			_, err := prompts(write(t, c.file, c.text), o, c.mark)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.NotEmpty(t, hint.Of(err))
		})
	}
	_, err = prompts(write(t, "a.jsonl", chat(`{"role": "user", "content": "x"}`)), o, "")
	require.ErrorContains(t, err, "the model has no chat template")
}
