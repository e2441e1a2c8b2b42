package data_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/stretchr/testify/require"
)

// open returns the tokenizer of stories260K, changed.
func open(t testing.TB, change func(*vocab.Vocab)) *tokenizer.Tokenizer {
	t.Helper()
	model, err := os.ReadFile("tokenizer/testdata/stories260K.model")
	require.NoError(t, err)
	v, err := vocab.ParseSentencePiece(model)
	require.NoError(t, err)
	if change != nil {
		change(v)
	}
	tok, err := tokenizer.New(v)
	require.NoError(t, err)
	return tok
}

func stories(t testing.TB) *tokenizer.Tokenizer { return open(t, nil) }

func noBOS(v *vocab.Vocab) { v.AddBOS = false }

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// load opens one file of the given text.
func load(t testing.TB, name, text string, o data.Options) (*data.Dataset, error) {
	t.Helper()
	s, err := data.Open(write(t, name, text), o)
	if err != nil {
		require.Nil(t, s)
		return nil, err
	}
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.Nil(t, s.Valid)
	require.Nil(t, s.Test)
	return s.Train, nil
}

// all returns every example and checks them against the totals.
func all(t testing.TB, d *data.Dataset) []data.Example {
	t.Helper()
	var out []data.Example
	var tokens, labels int64
	longest := 0
	for i := range d.Len() {
		e, err := d.Example(i)
		require.NoError(t, err)
		require.Positive(t, e.Labels())
		tokens += int64(len(e.Tokens))
		labels += int64(e.Labels())
		longest = max(longest, len(e.Tokens))
		out = append(out, e)
	}
	s := d.Stats()
	require.Equal(t, []int64{int64(d.Len()), tokens, labels, int64(longest)}, []int64{int64(s.Examples), s.Tokens, s.Labels, int64(s.Longest)})
	for _, i := range []int{-1, d.Len()} {
		_, err := d.Example(i)
		require.Error(t, err)
	}
	return out
}

// lossFrom returns the first token that an example has loss on.
func lossFrom(e data.Example) int {
	from := 0
	if e.Loss != nil {
		from = slices.Index(e.Loss, true)
	}
	return from
}

func TestWikiSQL(t *testing.T) {
	tok := stories(t)
	s, err := data.Open("testdata/wikisql", data.Options{Tokenizer: tok, MaxSeqLength: 512})
	require.NoError(t, err)
	defer s.Close()
	require.Equal(t, []int{20, 6, 4}, []int{s.Train.Len(), s.Valid.Len(), s.Test.Len()})
	require.Equal(t, filepath.Join("testdata", "wikisql", "valid.jsonl"), s.Valid.Path())
	for _, d := range []*data.Dataset{s.Train, s.Valid, s.Test} {
		text, err := os.ReadFile(d.Path())
		require.NoError(t, err)
		lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		for i, e := range all(t, d) {
			require.Equal(t, int32(1), e.Tokens[0])
			require.Equal(t, int32(2), e.Tokens[len(e.Tokens)-1])
			require.Equal(t, 1, slices.Index(e.Tokens, e.Tokens[1]))
			require.Equal(t, len(e.Tokens)-1, e.Labels())
			var row struct{ Text string }
			require.NoError(t, json.Unmarshal([]byte(lines[i]), &row))
			require.Equal(t, row.Text, tok.Decode(e.Tokens))
		}
		require.Zero(t, d.Stats().Truncated)
	}
}

// The same rows, as a question to be completed: the parts are one text, and loss
// begins with the first character of the answer.
func TestPromptAndCompletion(t *testing.T) {
	text, err := os.ReadFile("testdata/wikisql/train.jsonl")
	require.NoError(t, err)
	tok := stories(t)
	var b strings.Builder
	var answers, questions []string
	for line := range strings.Lines(string(text)) {
		var row struct{ Text string }
		require.NoError(t, json.Unmarshal([]byte(line), &row))
		q, a, ok := strings.Cut(row.Text, "\nA: ")
		require.True(t, ok)
		q += "\nA:"
		a = " " + a
		questions, answers = append(questions, q), append(answers, a)
		out, err := json.Marshal(map[string]any{"prompt": q, "completion": a, "table": []int{1}})
		require.NoError(t, err)
		b.Write(append(out, '\n'))
	}
	d, err := load(t, "rows.jsonl", b.String(), data.Options{Tokenizer: tok, MaxSeqLength: 512})
	require.NoError(t, err)
	for i, e := range all(t, d) {
		require.Equal(t, tok.EncodeWith(questions[i]+answers[i], tokenizer.Options{BOS: true, EOS: true}), e.Tokens)
		require.Equal(t, questions[i], tok.Decode(e.Tokens[:lossFrom(e)]))
		require.Equal(t, questions[i]+answers[i], tok.Decode(e.Tokens))
		require.Equal(t, len(e.Tokens)-lossFrom(e), e.Labels())
	}

	unmasked, err := load(t, "rows.jsonl", b.String(), data.Options{Tokenizer: tok, MaxSeqLength: 512, Mask: data.NoMask})
	require.NoError(t, err)
	require.Equal(t, d.Stats().Tokens, unmasked.Stats().Tokens)
	for i, e := range all(t, unmasked) {
		masked, err := d.Example(i)
		require.NoError(t, err)
		require.Equal(t, masked.Tokens, e.Tokens)
		require.Zero(t, lossFrom(e))
		require.Equal(t, len(e.Tokens)-1, e.Labels())
	}
}

func TestRows(t *testing.T) {
	for name, c := range map[string]struct {
		row  string
		bos  bool
		from int
		want string // pieces
	}{
		"text":                    {`{"text": "Once upon"}`, true, 0, "<s>|▁Once|▁upon|</s>"},
		"no bos":                  {`{"text": "Once upon"}`, false, 0, "▁Once|▁upon|</s>"},
		"other keys":              {`{"id": 3, "text": "Once", "meta": {"text": [null]}}`, true, 0, "<s>|▁Once|</s>"},
		"other is null":           {`{"text": "Once", "prompt": null}`, true, 0, "<s>|▁Once|</s>"},
		"escapes":                 {`{"text": "\u004fnce\n\u00e9"}`, true, 0, "<s>|▁Once|<0x0A>|é|</s>"},
		"bos in text":             {`{"text": "<s>Once</s>"}`, true, 0, "<s>|▁Once|</s>"},
		"bos twice":               {`{"text": "<s><s>"}`, true, 0, "<s>|▁|<|s|>|</s>"},
		"bos not added":           {`{"text": "<s>"}`, false, 0, "▁|<|s|>|</s>"},
		"special inside":          {`{"text": "s</s>s"}`, true, 0, "<s>|▁s|<|/|s|>|s|</s>"},
		"pair":                    {`{"prompt": "Once", "completion": " upon"}`, true, 2, "<s>|▁Once|▁upon|</s>"},
		"no second space":         {`{"prompt": "On", "completion": "ce"}`, true, 1, "<s>|▁Once|</s>"}, // one piece: it counts as completion
		"pair without bos":        {`{"prompt": "Once", "completion": " upon"}`, false, 1, "▁Once|▁upon|</s>"},
		"no prompt":               {`{"prompt": "", "completion": "Once"}`, true, 1, "<s>|▁Once|</s>"},
		"no prompt, space apart":  {`{"prompt": "", "completion": "日"}`, true, 2, "<s>|▁|<0xE6>|<0x97>|<0xA5>|</s>"},
		"no prompt, no bos":       {`{"prompt": "", "completion": "Once upon"}`, false, 0, "▁Once|▁upon|</s>"},
		"no completion":           {`{"prompt": "Once", "completion": ""}`, true, 2, "<s>|▁Once|</s>"},
		"special in pair":         {`{"prompt": "<s>Once", "completion": " upon</s>"}`, true, 2, "<s>|▁Once|▁upon|</s>"},
		"bytes of the completion": {`{"prompt": "a", "completion": "日"}`, true, 2, "<s>|▁a|<0xE6>|<0x97>|<0xA5>|</s>"},
	} {
		t.Run(name, func(t *testing.T) {
			tok := open(t, func(v *vocab.Vocab) { v.AddBOS = c.bos })
			d, err := load(t, "x.jsonl", c.row, data.Options{Tokenizer: tok, MaxSeqLength: 100})
			require.NoError(t, err)
			e := all(t, d)[0]
			var pieces []string
			for _, id := range e.Tokens {
				pieces = append(pieces, tok.Piece(id))
			}
			require.Equal(t, c.want, strings.Join(pieces, "|"))
			require.Equal(t, c.from, lossFrom(e))
			require.Equal(t, len(e.Tokens)-max(1, c.from), e.Labels())
		})
	}
}

func TestWithoutEOS(t *testing.T) {
	tok := open(t, func(v *vocab.Vocab) { v.EOS = vocab.None })
	d, err := load(t, "x.jsonl", `{"text": "Once</s>"}`, data.Options{Tokenizer: tok, MaxSeqLength: 100})
	require.NoError(t, err)
	require.Equal(t, "Once</s>", tok.Decode(all(t, d)[0].Tokens))
	_, err = load(t, "x.jsonl", `{"prompt": "Once", "completion": ""}`, data.Options{Tokenizer: tok, MaxSeqLength: 100})
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, "nothing to predict")
}

func TestLineEnds(t *testing.T) {
	want, err := load(t, "x.jsonl", `{"text": "Once"}`+"\n"+`{"text": "upon"}`, data.Options{Tokenizer: stories(t), MaxSeqLength: 9})
	require.NoError(t, err)
	for name, text := range map[string]string{
		"newline":     `{"text": "Once"}` + "\n" + `{"text": "upon"}` + "\n",
		"CRLF":        `{"text": "Once"}` + "\r\n" + `{"text": "upon"}` + "\r\n",
		"BOM":         "\ufeff" + `{"text": "Once"}` + "\n" + `{"text": "upon"}`,
		"empty lines": "\n \t\n" + ` {"text": "Once"} ` + "\n\r\n\n\n" + `{"text": "upon"}` + "\n\n  ",
	} {
		for _, file := range []string{"x.jsonl", "x.ndjson", "x.json", "x"} {
			d, err := load(t, file, text, data.Options{Tokenizer: stories(t), MaxSeqLength: 9})
			require.NoError(t, err, "%s %s", name, file)
			require.Equal(t, all(t, want), all(t, d), "%s %s", name, file)
		}
	}
}

func TestOverlong(t *testing.T) {
	texts := `{"text": "Once upon a time"}
{"text": "Once"}
`
	pairs := `{"prompt": "Once", "completion": " upon"}
{"prompt": "Once upon", "completion": " a time"}
`
	o := data.Options{Tokenizer: stories(t), MaxSeqLength: 4}
	d, err := load(t, "x.jsonl", texts, o)
	require.NoError(t, err)
	all(t, d)
	require.Equal(t, data.Stats{Examples: 2, Tokens: 7, Labels: 3 + 2, Truncated: 1, Cut: 2, Longest: 4}, d.Stats())
	d, err = load(t, "x.jsonl", pairs, o)
	require.NoError(t, err)
	all(t, d)
	require.Equal(t, data.Stats{Examples: 2, Tokens: 8, Labels: 2 + 1, Truncated: 1, Cut: 2, Longest: 4}, d.Stats())

	o.MaxSeqLength = 3
	_, err = load(t, "x.jsonl", pairs, o)
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, "x.jsonl:2: malformed input: no token to train on: the prompt has 3 tokens and examples are cut at 3")
	require.Contains(t, hint.Of(err), "--max-seq-length above 3")

	o.Overlong = data.Drop
	d, err = load(t, "x.jsonl", texts, o)
	require.NoError(t, err)
	require.Equal(t, data.Stats{Examples: 1, Tokens: 3, Labels: 2, Dropped: 1, Cut: 6, Longest: 3}, d.Stats())
	all(t, d)
	_, err = load(t, "x.jsonl", pairs, o)
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, "x.jsonl: malformed input: all 2 examples have more than 3 tokens")

	o.Overlong = data.Refuse
	_, err = load(t, "x.jsonl", texts, o)
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, "x.jsonl:1: malformed input: the example has 6 tokens, over the limit of 3")
	require.Contains(t, hint.Of(err), "--max-seq-length to 6")
}

func TestRowErrors(t *testing.T) {
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	for name, c := range map[string]struct {
		line string
		is   error
		says string
	}{
		"not JSON":        {`hello`, tensor.ErrMalformed, "not JSON: hello"},
		"half":            {`{"text": "Once`, tensor.ErrMalformed, "not JSON"},
		"two":             {`{"text": "Once"} {"text": "Once"}`, tensor.ErrMalformed, "not JSON"},
		"list":            {`["Once"]`, tensor.ErrMalformed, `not an object: ["Once"]`},
		"string":          {`"Once"`, tensor.ErrMalformed, "not an object"},
		"null":            {`null`, tensor.ErrMalformed, "not an object"},
		"empty object":    {`{}`, tensor.ErrMalformed, "but nothing"},
		"unknown keys":    {`{"quest": "a", "answer": "b"}`, tensor.ErrMalformed, `"answer", "quest"`},
		"many keys":       {`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}`, tensor.ErrMalformed, `"e", ...: {"a":1`},
		"spelling":        {`{"Text": "a"}`, tensor.ErrMalformed, `but "Text"`},
		"number":          {`{"text": 3}`, tensor.ErrMalformed, `"text" is a number, want a text`},
		"list of texts":   {`{"text": ["b"]}`, tensor.ErrMalformed, `"text" is a list, want a text`},
		"null text":       {`{"text": null}`, tensor.ErrMalformed, "nothing"},
		"twice":           {`{"text": "a", "text": "b"}`, tensor.ErrMalformed, "duplicate"},
		"empty text":      {`{"text": ""}`, tensor.ErrMalformed, "the text is empty"},
		"only bos":        {`{"text": "<s></s>"}`, tensor.ErrMalformed, "the text is empty"},
		"not UTF-8":       {"{\"text\": \"a\xff\"}", tensor.ErrMalformed, "UTF-8"},
		"surrogate":       {`{"text": "\ud800"}`, tensor.ErrMalformed, "surrogate"},
		"NUL":             {"{\"text\": \"a\x00b\"}", tensor.ErrMalformed, "not JSON"},
		"control":         {"{\"text\": \"a\tb\"}", tensor.ErrMalformed, "not JSON"},
		"deep":            {`{"text": "a", "x": ` + deep + `}`, tensor.ErrMalformed, "depth"},
		"a long bad line": {strings.Repeat("Once ", 100), tensor.ErrMalformed, "not JSON: " + strings.Repeat("Once ", 12) + "..."},
	} {
		t.Run(name, func(t *testing.T) {
			good := `{"text": "Once"}` + "\n"
			for _, at := range []int{1, 3, 3000} {
				text := strings.Repeat(good, at-1) + c.line + "\n" + strings.Repeat(good, 10)
				_, err := load(t, "x.jsonl", text, data.Options{Tokenizer: stories(t), MaxSeqLength: 9})
				require.ErrorIs(t, err, c.is)
				require.ErrorContains(t, err, fmt.Sprintf("x.jsonl:%d: ", at))
				require.ErrorContains(t, err, c.says)
				require.NotEmpty(t, hint.Of(err))
				require.NotContains(t, err.Error(), "\n")
				require.Less(t, len(err.Error()), 400)
			}
		})
	}
}

// The first row at fault is named, however the work is divided.
func TestFirstError(t *testing.T) {
	var b strings.Builder
	for i := range 200_000 {
		if i >= 100_000 && i%1000 == 17 {
			b.WriteString("bad\n")
		} else {
			b.WriteString(`{"text": "Once upon a time"}` + "\n")
		}
	}
	for range 3 {
		_, err := load(t, "x.jsonl", b.String(), data.Options{Tokenizer: stories(t), MaxSeqLength: 9})
		require.ErrorContains(t, err, "x.jsonl:100018: ")
	}
}

func TestLongLines(t *testing.T) {
	// Longer than the buffer.
	text := strings.Repeat("Once upon a time. ", 200_000)
	d, err := load(t, "x.jsonl", `{"text": "`+text+`"}`+"\n"+`{"text": "Once"}`, data.Options{Tokenizer: stories(t), MaxSeqLength: 9})
	require.NoError(t, err)
	require.Len(t, all(t, d), 2)
	require.Equal(t, 1, d.Stats().Truncated)
	require.Greater(t, d.Stats().Cut, int64(800_000))

	// A file of nothing else, of no size on the disk.
	path := write(t, "x.jsonl", "{\"text\": \"Once\"}\n{")
	require.NoError(t, os.Truncate(path, 70<<20))
	_, err = data.Open(path, data.Options{Tokenizer: stories(t), MaxSeqLength: 9})
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, "x.jsonl:2: malformed input: a line of more than 64 MiB")
}

func TestMaskWithoutPrompt(t *testing.T) {
	o := data.Options{Tokenizer: stories(t), MaxSeqLength: 9, Mask: data.MaskPrompt}
	for file, text := range map[string]string{
		"x.jsonl": `{"text": "a"}`,
		"x.txt":   "Once upon a time",
	} {
		_, err := load(t, file, text, o)
		require.ErrorIs(t, err, tensor.ErrMalformed)
		require.ErrorContains(t, err, "the prompt is to be masked")
		require.Contains(t, hint.Of(err), "--mask-prompt")
	}
	d, err := load(t, "x.jsonl", `{"prompt": "a", "completion": "b"}`, o)
	require.NoError(t, err)
	require.Equal(t, 2, lossFrom(all(t, d)[0]))
}

func TestConcurrentUse(t *testing.T) {
	s, err := data.Open("testdata/wikisql", data.Options{Tokenizer: stories(t), MaxSeqLength: 512})
	require.NoError(t, err)
	defer s.Close()
	want := all(t, s.Train)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for range 200 {
				i := r.IntN(len(want))
				e, err := s.Train.Example(i)
				if err != nil || !slices.Equal(want[i].Tokens, e.Tokens) {
					t.Errorf("example %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}

// A file is read once.
func TestFileThatGoesAway(t *testing.T) {
	path := write(t, "x.jsonl", `{"text": "Once"}`+"\n"+`{"text": "upon"}`)
	dir := t.TempDir()
	s, err := data.Open(path, data.Options{Tokenizer: stories(t), MaxSeqLength: 9, ScratchDir: dir})
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	require.Len(t, all(t, s.Train), 2)
	require.NoError(t, s.Close())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	_, err = data.Open(write(t, "x.jsonl", `{"text": "Once"}`), data.Options{Tokenizer: stories(t), MaxSeqLength: 9, ScratchDir: filepath.Join(dir, "none")})
	require.ErrorContains(t, err, "scratch directory")
}

func FuzzRows(f *testing.F) {
	f.Add([]byte(`{"text": "Once upon a time"}`), 9, uint8(0))
	f.Add([]byte(`{"prompt": "Once\n", "completion": " upon"}`+"\r\n\n"), 3, uint8(2))
	f.Add([]byte("\ufeff{\"messages\": []}\n[1"), 2, uint8(1))
	f.Add([]byte(`{"messages": [{"role": "user", "content": "Once"}, {"role": "assistant", "content": "upon"}], "tools": "[{}]"}`), 60, uint8(8))
	f.Add([]byte(`{"conversations": [{"from": "function_call", "value": "{\"name\": \"f\"}"}], "system": "x"}`), 60, uint8(8))
	f.Add([]byte(`{"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]}`), 400, uint8(28))
	f.Add([]byte(`{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}`), 60, uint8(64+8))
	tok := stories(f)
	template := parseTemplate(f, plainChat)
	f.Fuzz(func(t *testing.T, text []byte, size int, how uint8) {
		o := data.Options{
			Tokenizer: tok, MaxSeqLength: size, Mask: data.Mask(how & 3 % 3), ApplyTemplate: how&4 != 0, Overlong: data.Overlong(how >> 4 & 3 % 3),
			MaskHistory: how&64 != 0, ParseSpecial: how&128 != 0,
		}
		if how&8 != 0 {
			o.Template = template
		}
		for _, name := range []string{"x.jsonl", "x.json", "x"} {
			d, err := load(t, name, string(text), o)
			if err != nil {
				require.False(t, strings.ContainsFunc(err.Error(), unicode.IsControl), "%q", err)
				continue
			}
			for _, e := range all(t, d) {
				require.LessOrEqual(t, len(e.Tokens), size)
				require.Less(t, slices.Max(e.Tokens), int32(512))
				require.GreaterOrEqual(t, slices.Min(e.Tokens), int32(0))
			}
		}
	})
}

func BenchmarkOpenRows(b *testing.B) {
	text, err := os.ReadFile("testdata/wikisql/train.jsonl")
	require.NoError(b, err)
	path := write(b, "x.jsonl", strings.Repeat(string(text), 400))
	tok := stories(b)
	b.SetBytes(int64(len(text)) * 400)
	for b.Loop() {
		s, err := data.Open(path, data.Options{Tokenizer: tok, MaxSeqLength: 512})
		require.NoError(b, err)
		require.NoError(b, s.Close())
	}
}

func BenchmarkExample(b *testing.B) {
	s, err := data.Open("testdata/wikisql", data.Options{Tokenizer: stories(b), MaxSeqLength: 512})
	require.NoError(b, err)
	defer s.Close()
	for b.Loop() {
		_, err := s.Train.Example(7)
		require.NoError(b, err)
	}
}

func BenchmarkPermutation(b *testing.B) {
	for b.Loop() {
		data.Permutation(1, 1, 1_000_000)
	}
}
