package data_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/stretchr/testify/require"
)

// shown is the text of an example, what is trained of it in brackets.
func shown(tok *tokenizer.Tokenizer, e data.Example) string {
	v := tok.Vocab()
	special := map[int32]string{v.BOS: tok.Piece(v.BOS), v.EOS: tok.Piece(v.EOS)}
	var b strings.Builder
	d := tok.NewDecoder()
	inside := false
	for j, id := range e.Tokens {
		loss := j > 0 && (e.Loss == nil || e.Loss[j])
		if loss != inside {
			b.WriteString(map[bool]string{true: "[", false: "]"}[loss])
			inside = loss
		}
		if s, ok := special[id]; ok {
			b.WriteString(s)
			continue
		}
		b.WriteString(d.Next(id))
	}
	b.WriteString(d.Flush())
	if inside {
		b.WriteString("]")
	}
	return b.String()
}

const (
	alpacaShort = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n%s\n\n### Response:"
	alpacaLong  = "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\n%s\n\n### Input:\n%s\n\n### Response:"

	// plainChat is a template with markers, that begins with BOS.
	plainChat = `{{ bos_token }}{% for m in messages %}{{ m.role + ':\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}` +
		`{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{{ eos_token }}{% endgeneration %}` +
		`{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}{% for t in tools or [] %}{{ t.name }};{% endfor %}`
)

func TestLayouts(t *testing.T) {
	tok := stories(t)
	chats := func(o *data.Options) { o.Template = parseTemplate(t, plainChat) }
	both := func(fs ...func(*data.Options)) func(*data.Options) {
		return func(o *data.Options) {
			for _, f := range fs {
				f(o)
			}
		}
	}
	apply := both(chats, func(o *data.Options) { o.ApplyTemplate = true })
	for name, c := range map[string]struct {
		row    string
		change func(*data.Options)
		want   string
		what   string
	}{
		"question": {`{"question": "Who?", "answer": " Me", "id": 7}`, nil, "<s>Who?[ Me</s>]", `pair rows: prompt from "question", completion from "answer"; not used: "id"`},
		"response": {`{"prompt": "Who?", "response": " Me"}`, nil, "<s>Who?[ Me</s>]", `pair rows: "prompt", completion from "response"`},
		"input":    {`{"input": "Who?", "output": " Me"}`, nil, "<s>Who?[ Me</s>]", `pair rows: prompt from "input", completion from "output"`},
		"alpaca": {`{"instruction": "Say", "input": "", "output": "No"}`, nil, "<s>" + fmt.Sprintf(alpacaShort, "Say") + "[No</s>]",
			`alpaca rows: "instruction", "output", "input"`},
		"alpaca with an input": {`{"instruction": "Say", "input": "it", "output": "No"}`, nil, "<s>" + fmt.Sprintf(alpacaLong, "Say", "it") + "[No</s>]", ""},
		"alpaca with another text": {`{"instruction": "Say", "output": "No", "text": "x"}`, func(o *data.Options) { o.Format = "alpaca" },
			"<s>" + fmt.Sprintf(alpacaShort, "Say") + "[No</s>]", `alpaca rows: "instruction", "output"; not used: "text"`},
		"dolly": {`{"instruction": "Say", "context": "it", "response": "No"}`, nil, "<s>" + fmt.Sprintf(alpacaLong, "Say", "it") + "[No</s>]",
			`alpaca rows: "instruction", output from "response", input from "context"`},

		"mapped text":   {`{"story": "Who?", "prompt": 1, "text": 2}`, func(o *data.Options) { o.Fields.Text = "story" }, "<s>[Who?</s>]", `text rows: text from "story"; not used: "prompt", "text"`},
		"mapped prompt": {`{"q": "Who?", "completion": " Me"}`, func(o *data.Options) { o.Fields.Prompt = "q" }, "<s>Who?[ Me</s>]", ""},
		"mapped pair":   {`{"q": "Who?", "a": " Me"}`, func(o *data.Options) { o.Fields = data.Fields{Prompt: "q", Completion: "a"} }, "<s>Who?[ Me</s>]", ""},
		"separator":     {`{"prompt": "Who?", "completion": "Me"}`, func(o *data.Options) { o.Separator = "\n" }, "<s>Who?\n[Me</s>]", ""},
		"parse special": {`{"text": "a</s><s>b"}`, func(o *data.Options) { o.ParseSpecial = true }, "<s>[a</s><s>b</s>]", ""},

		"messages": {`{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}, {"role": "user", "content": "Yes?"}, {"role": "assistant", "content": "No"}]}`,
			chats, "<s>user:\nWho?\nassistant:\n[Me</s>]\nuser:\nYes?\nassistant:\n[No</s>]\n", `chat rows: "messages"`},
		"last turn": {`{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}, {"role": "user", "content": "Yes?"}, {"role": "assistant", "content": "No"}]}`,
			both(chats, func(o *data.Options) { o.MaskHistory = true }), "<s>user:\nWho?\nassistant:\nMe</s>\nuser:\nYes?\nassistant:\n[No</s>]\n", ""},
		"no mask": {`{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}]}`,
			both(chats, func(o *data.Options) { o.Mask = data.NoMask }), "<s>[user:\nWho?\nassistant:\nMe</s>\n]", ""},
		"named messages": {`{"chat": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}]}`,
			both(chats, func(o *data.Options) { o.Fields.Messages = "chat" }), "<s>user:\nWho?\nassistant:\n[Me</s>]\n", `chat rows: messages from "chat"`},
		"tools": {`{"tools": [{"name": "f"}, {"name": "g"}], "messages": [{"role": "assistant", "content": "Me"}]}`, chats, "<s>assistant:\n[Me</s>]\nf;g;", `chat rows: "messages", "tools"`},
		"tools as text": {`{"tools": "[{\"name\": \"f\"}]", "conversations": [{"from": "gpt", "value": "Me"}], "system": "Be"}`,
			chats, "<s>system:\nBe\nassistant:\n[Me</s>]\nf;", `chat rows: messages from "conversations", "system", "tools"`},
		"sharegpt": {`{"conversations": [{"from": "system", "value": "Be"}, {"from": "human", "value": "Who?"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"}, ` +
			`{"from": "observation", "value": "3"}, {"from": "gpt", "value": "Me"}]}`, chats,
			"<s>system:\nBe\nuser:\nWho?\nassistant:\n[f({\"x\": 1})</s>]\ntool:\n3\nassistant:\n[Me</s>]\n", ""},
		"two calls": {`{"conversations": [{"from": "function_call", "value": "[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {}}]"}]}`, chats,
			"<s>assistant:\n[f({})g({})</s>]\n", ""},

		"pair as a chat":   {`{"question": "Who?", "answer": "Me"}`, apply, "<s>user:\nWho?\nassistant:\n[Me</s>]\n", ""},
		"alpaca as a chat": {`{"instruction": "Say", "input": "it", "output": "No", "system": "Be", "history": [["Who?", "Me"]]}`, apply, "<s>system:\nBe\nuser:\nWho?\nassistant:\n[Me</s>]\nuser:\nSay\nit\nassistant:\n[No</s>]\n", ""},
		"text as it is":    {`{"text": "Who?"}`, apply, "<s>[Who?</s>]", ""},
		"pair of turns": {`{"prompt": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}, {"role": "user", "content": "Yes?"}], "completion": [{"role": "assistant", "content": "No"}]}`,
			chats, "<s>user:\nWho?\nassistant:\nMe</s>\nuser:\nYes?\nassistant:\n[No</s>]\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := data.Options{Tokenizer: tok, MaxSeqLength: 1000}
			if c.change != nil {
				c.change(&o)
			}
			s, err := data.Open(write(t, "x.jsonl", c.row), o)
			require.NoError(t, err)
			defer s.Close()
			require.Equal(t, c.want, shown(tok, all(t, s.Train)[0]))
			if c.what != "" {
				require.Equal(t, c.what, s.Files[0].What)
			}
		})
	}
}

// BOS comes once, whoever adds it.
func TestOneBOS(t *testing.T) {
	const chat = `{"messages": [{"role": "assistant", "content": "Me"}]}`
	without := strings.TrimPrefix(plainChat, "{{ bos_token }}")
	for name, c := range map[string]struct {
		template string
		adds     bool
		want     string
	}{
		"both":      {plainChat, true, "<s>assistant"},
		"template":  {plainChat, false, "<s>assistant"},
		"tokenizer": {without, true, "<s>assistant"},
		"neither":   {without, false, "assistant"},
	} {
		t.Run(name, func(t *testing.T) {
			tok := open(t, func(v *vocab.Vocab) { v.AddBOS = c.adds })
			d, err := load(t, "x.jsonl", chat, data.Options{Tokenizer: tok, MaxSeqLength: 100, Template: parseTemplate(t, c.template)})
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(shown(tok, all(t, d)[0]), c.want+":\n["), shown(tok, all(t, d)[0]))
		})
	}
}

func TestLayoutErrors(t *testing.T) {
	const turns = `{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}]}`
	chats := func(o *data.Options) { o.Template = parseTemplate(t, plainChat) }
	for name, c := range map[string]struct {
		rows   string
		change func(*data.Options)
		says   string
		todo   string
	}{
		"another layout":   {`{"text": "a"}` + "\n" + turns, chats, `x.jsonl:2: malformed input: no "text", but "messages": {"messages"`, `every row of a file must have what its first row has: "text"`},
		"half of a pair":   {`{"prompt": "a"}`, nil, "x.jsonl:1: malformed input: a prompt without a completion", "want {"},
		"other half":       {`{"completion": "a"}`, nil, "a completion without a prompt", "want {"},
		"both":             {`{"text": "a", "prompt": "b", "completion": "c"}`, nil, "can be read as text or as pair", "--data-format"},
		"not as asked":     {`{"text": "a"}`, func(o *data.Options) { o.Format = "chat" }, `but "text"`, "want {"},
		"named, not there": {`{"text": "a"}`, func(o *data.Options) { o.Fields.Text = "story" }, `no "story", but "text"`, `"story"`},
		"named of two":     {`{"text": "a"}`, func(o *data.Options) { o.Fields = data.Fields{Text: "a", Prompt: "b"} }, "fields of text and of pair", ""},
		"named of another": {`{"text": "a"}`, func(o *data.Options) { o.Fields.Text, o.Format = "text", "chat" }, "the data format is chat", ""},
		"no template":      {turns, nil, "unsupported input: a chat, and the model has no chat template", "--chat-template"},
		"not for alpaca":   {`{"instruction": "a", "output": "b", "system": "c"}`, nil, `the row has "system"`, "--apply-chat-template"},
		"history":          {`{"instruction": "a", "output": "b", "history": [["c", "d"]]}`, nil, `the row has "history"`, "--apply-chat-template"},
		"half a history":   {`{"instruction": "a", "output": "b", "history": [["c"]]}`, nil, `"history" has 1 texts in a turn`, ""},
		"no history":       {`{"instruction": "a", "output": "b", "history": "c"}`, nil, `"history"`, ""},
		"no turns":         {`{"messages": []}`, chats, `"messages" has no turns`, "remove"},
		"not turns":        {`{"messages": "a"}`, chats, `"messages" is a text, want a list`, "a turn is"},
		"a turn of text":   {`{"messages": ["a"]}`, chats, `turn 1 of "messages"`, "a turn is"},
		"no role":          {`{"messages": [{"content": "a"}]}`, chats, `turn 1 of "messages": neither a role nor a from and a value, but "content"`, "a turn is"},
		"odd role":         {`{"conversations": [{"from": "human", "value": "a"}, {"from": "dog", "value": "b"}]}`, chats, `turn 2 of "conversations": a role that is not known: dog`, "a turn is"},
		"role of number":   {`{"messages": [{"role": 1, "content": "a"}]}`, chats, "its role is a number", "a turn is"},
		"value of number":  {`{"conversations": [{"from": "human", "value": 3}]}`, chats, "its value is a number", "a turn is"},
		"no call":          {`{"conversations": [{"from": "function_call", "value": "f(x)"}]}`, chats, "the function call is not JSON", "a turn is"},
		"call of nothing":  {`{"conversations": [{"from": "function_call", "value": "{}"}]}`, chats, "the function call has no name", "a turn is"},
		"tools of number":  {`{"tools": 1, "messages": [{"role": "assistant", "content": "a"}]}`, chats, `"tools" is a number, want a list of tools`, ""},
		"nobody to train":  {`{"messages": [{"role": "user", "content": "a"}]}`, chats, "no token to train on", "remove the row"},
		"cut before it":    {turns, func(o *data.Options) { chats(o); o.MaxSeqLength = 6 }, "examples are cut at 6", "--overlong drop"},
		"half of turns":    {`{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}`, chats, `"completion" is a text, want a list of turns`, "a turn is"},
		"the other half":   {`{"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]}`, chats, `"completion" is a list, want a text`, ""},
		"refused by it":    {turns, func(o *data.Options) { o.Template = parseTemplate(t, `{{ raise_exception("no") }}`) }, "x.jsonl:1: ", ""},
		"endless": {turns, func(o *data.Options) {
			o.Template = parseTemplate(t, `{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}`)
		}, "x.jsonl:1: unsupported input: ", ""},
		"terminal controls": {`{"\u001b[31m": "a"}`, nil, "x.jsonl:1", "want {"},
	} {
		t.Run(name, func(t *testing.T) {
			o := data.Options{Tokenizer: stories(t), MaxSeqLength: 1000}
			if c.change != nil {
				c.change(&o)
			}
			_, err := load(t, "x.jsonl", c.rows, o)
			require.ErrorContains(t, err, c.says)
			require.True(t, strings.Contains(err.Error(), tensor.ErrMalformed.Error()) || strings.Contains(err.Error(), tensor.ErrUnsupported.Error()))
			require.Contains(t, hint.Of(err), c.todo)
			require.False(t, strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }), "%q", err)
			require.Less(t, len(err.Error()), 500)
		})
	}
}

// Every format that files come in makes the same examples.
func TestFileFormats(t *testing.T) {
	dir := t.TempDir()
	want, err := load(t, "x.jsonl", `{"prompt": "Who?", "completion": " Me"}`+"\n"+`{"prompt": "Yes?", "completion": " No"}`, data.Options{Tokenizer: stories(t), MaxSeqLength: 100})
	require.NoError(t, err)
	for name, text := range map[string]string{
		"x.json": `[{"prompt": "Who?", "completion": " Me"}, {"prompt": "Yes?", "completion": " No"}]`,
		"y.json": `{"data": [{"prompt": "Who?", "completion": " Me"}, {"prompt": "Yes?", "completion": " No"}]}`,
		"x.csv":  "prompt,completion\nWho?,\" Me\"\nYes?, No\n",
		"x.tsv":  "prompt\tcompletion\nWho?\t Me\nYes?\t No\n",
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		s, err := data.Open(path, data.Options{Tokenizer: stories(t), MaxSeqLength: 100})
		require.NoError(t, err, name)
		require.Equal(t, all(t, want), all(t, s.Train), name)
		require.NoError(t, s.Close())
	}
}
