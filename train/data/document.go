package data

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/chat"
)

// document is the text of a row and what of it is trained.
type document struct {
	text string

	// trained are the parts that loss is taken on, in order, if masked; else it is all.
	trained []chat.Span
	masked  bool

	// tight says that a prompt and what follows it meet without space between them.
	tight bool

	// answer is what is to come after the text, if a chat is asked and not trained on.
	answer string
	// system says that there is a system turn.
	system bool

	// rendered says that a chat template made the text. It has the special tokens that
	// it needs, BOS perhaps excepted.
	rendered bool
}

func makeText(o *Options, l *layout, row object) (document, error) {
	text, err := l.text(row, textAt)
	if err != nil {
		return document{}, err
	}
	if o.Mask == MaskPrompt {
		return document{}, hint.Add(fmt.Errorf("%w: the prompt is to be masked and the row has none", tensor.ErrMalformed), noPrompt)
	}
	if text = o.withoutEOS(o.withoutBOS(text)); text == "" {
		return document{}, hint.Add(fmt.Errorf("%w: the text is empty", tensor.ErrMalformed), "remove the row")
	}
	return document{text: text}, nil
}

func makePair(o *Options, l *layout, row object) (document, error) {
	prompt, err := l.value(row, promptAt)
	if err != nil {
		return document{}, err
	}
	completion, err := l.value(row, completionAt)
	if err != nil {
		return document{}, err
	}
	if prompt.Kind() == '[' || prompt.Kind() == '{' {
		return o.conversation(l, row, prompt, completion)
	}
	p, err := l.unquote(prompt, promptAt)
	if err != nil {
		return document{}, err
	}
	c, err := l.unquote(completion, completionAt)
	if err != nil {
		return document{}, err
	}
	if o.ApplyTemplate {
		turns := []message{turn("user", p), turn("assistant", c)}
		return o.render(l, row, turns, pairSystemAt, pairToolsAt, 0)
	}
	if field := o.Fields.System + o.Fields.Tools; field != "" {
		return document{}, needsTemplate(field)
	}
	return o.pair(o.withoutBOS(p)+o.Separator, o.withoutEOS(c)), nil
}

// pair is a prompt and what is to come after it, as one text.
func (o *Options) pair(prompt, completion string) document {
	d := document{text: prompt + completion, tight: !spaced(prompt, completion)}
	if o.Mask != NoMask {
		d.masked, d.trained = true, []chat.Span{{From: len(prompt), To: len(d.text)}}
	}
	return d
}

// spaced reports whether there is space where two texts meet, or nothing that meets.
func spaced(a, b string) bool {
	end, _ := utf8.DecodeLastRuneInString(a)
	begin, _ := utf8.DecodeRuneInString(b)
	return a == "" || b == "" || unicode.IsSpace(end) || unicode.IsSpace(begin)
}

// The template of Stanford Alpaca, with and without an input.
const (
	alpacaWithInput = "Below is an instruction that describes a task, paired with an input that provides further context. " +
		"Write a response that appropriately completes the request.\n\n### Instruction:\n%s\n\n### Input:\n%s\n\n### Response:"
	alpacaNoInput = "Below is an instruction that describes a task. " +
		"Write a response that appropriately completes the request.\n\n### Instruction:\n%s\n\n### Response:"
)

func makeAlpaca(o *Options, l *layout, row object) (document, error) {
	var text [historyAt]string
	for at := range text {
		var err error
		if text[at], err = l.text(row, at); err != nil {
			return document{}, err
		}
	}
	history, err := l.history(row)
	if err != nil {
		return document{}, err
	}
	instruction, input := text[instructionAt], text[inputAt]
	if o.ApplyTemplate {
		if input != "" {
			instruction += "\n" + input
		}
		turns := append(history, turn("user", instruction), turn("assistant", text[outputAt]))
		return o.render(l, row, turns, systemAt, -1, 0)
	}
	if text[systemAt] != "" {
		return document{}, needsTemplate(l.keys[systemAt])
	}
	if len(history) > 0 {
		return document{}, needsTemplate(l.keys[historyAt])
	}
	prompt := fmt.Sprintf(alpacaNoInput, instruction)
	if input != "" {
		prompt = fmt.Sprintf(alpacaWithInput, instruction, input)
	}
	d := o.pair(prompt, o.withoutEOS(text[outputAt]))
	d.tight = false // as Stanford has it
	return d, nil
}

// history returns the turns before the last that a row of LLaMA-Factory's has: pairs of
// texts.
func (l *layout) history(row object) (turns []message, err error) {
	v := row[l.keys[historyAt]]
	if v == nil {
		return nil, nil
	}
	var pairs [][]string
	if err := json.Unmarshal(v, &pairs); err != nil {
		return nil, fmt.Errorf("%w: %q: %w", tensor.ErrMalformed, l.keys[historyAt], err)
	}
	for _, p := range pairs {
		if len(p) != 2 {
			return nil, fmt.Errorf("%w: %q has %d texts in a turn, want two", tensor.ErrMalformed, l.keys[historyAt], len(p))
		}
		turns = append(turns, turn("user", p[0]), turn("assistant", p[1]))
	}
	return turns, nil
}

func needsTemplate(key string) error {
	return hint.Add(fmt.Errorf("%w: the row has %q, which only a chat template has a place for", tensor.ErrMalformed, key), "give --apply-chat-template")
}

// withoutBOS removes the text of the token that is added in front.
func (o *Options) withoutBOS(s string) string {
	v := o.Tokenizer.Vocab()
	if !v.AddBOS {
		return s
	}
	return strings.TrimPrefix(s, o.Tokenizer.Piece(v.BOS))
}

// withoutEOS removes the text of the token that is added at the end.
func (o *Options) withoutEOS(s string) string {
	return strings.TrimSuffix(s, o.Tokenizer.Piece(o.Tokenizer.Vocab().EOS))
}
