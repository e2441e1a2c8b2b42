package chat

import (
	"errors"
	"fmt"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/jinja"
	"github.com/seed18967229/nibble/tensor"
)

// ErrNoSpans is what Spans wraps where it cannot tell what the assistant wrote.
var ErrNoSpans = errors.New("the template does not show which text is the assistant's")

const advice = "use a template with {%% generation %%} markers (--chat-template), or train on everything with --mask-prompt=false"

// maxMessages bounds how many messages are rendered as often as there are turns.
const maxMessages = 1000

// Spans makes the text of a whole conversation and says what of it the assistant writes, for the loss: from behind what the generation prompt
// gives up to and with what ends the turn. Whitespace behind that is not the assistant's, unless nothing else ends it.
//
// A template with {% generation %} says it itself. Else a turn begins where the conversation before it ends, rendered with a generation prompt,
// and ends where the conversation up to it ends: both must be the beginning of the whole. Some templates write earlier turns differently once
// others follow: without what was thought, with the tools at the last question, with an end of text at the last answer only. There the ends of
// those two are looked for in the whole.
func (t *Template) Spans(in Input) (text string, assistant []Span, err error) {
	c, err := in.conversation()
	if err != nil {
		return "", nil, err
	}
	text, marked, usable, err := t.render(c, c.messages, false, false)
	if err != nil {
		return "", nil, err
	}
	if usable {
		return text, marked, nil
	}
	if len(c.messages) > maxMessages {
		return "", nil, hint.Add(fmt.Errorf("%w: %d messages in one conversation; without markers the turns of at most %d are looked for: %w",
			tensor.ErrUnsupported, len(c.messages), maxMessages, ErrNoSpans), advice)
	}
	f := finder{t: t, c: c, text: text, known: map[prefix]rendering{}}
	for i, m := range c.messages {
		if f.role(i) != "assistant" {
			continue
		}
		f.forget(i)
		s, ok := f.byPrefixes(i)
		if !ok {
			s, ok = f.byAlignment(i)
		}
		if ok = ok && s.From >= f.end && s.To > s.From; !ok && silent(m.(*jinja.Dict)) {
			continue
		}
		if !ok {
			return "", nil, hint.Add(fmt.Errorf("%w: message %d: %w", tensor.ErrUnsupported, i+1, ErrNoSpans), advice)
		}
		s.To = f.closed(i, s.To)
		f.end = s.To
		assistant = append(assistant, s)
	}
	return text, assistant, nil
}

// finder finds turns in a text.
type finder struct {
	t    *Template
	c    *conversation
	text string
	end  int // of the last turn found
	// What is known of the beginnings of the conversation: of the turn under way and the one before.
	known map[prefix]rendering
}

type prefix struct {
	n      int
	prompt bool
}

type rendering struct {
	text string
	ok   bool
}

// upTo is what the first n messages render to, with a generation prompt or without, and whether they do.
func (f *finder) upTo(n int, prompt bool) (string, bool) {
	if !prompt {
		switch n {
		case 0:
			return "", true
		case len(f.c.messages):
			return f.text, true
		}
	}
	key := prefix{n, prompt}
	r, ok := f.known[key]
	if !ok {
		r.text, r.ok = f.render(f.c.messages[:n], prompt)
		f.known[key] = r
	}
	return r.text, r.ok
}

func (f *finder) render(messages []jinja.Value, prompt bool) (string, bool) {
	s, _, _, err := f.t.render(f.c, messages, prompt, false)
	return s, err == nil
}

// forget drops what the turns from message i on do not ask for, so that memory does not grow with the conversation.
func (f *finder) forget(i int) {
	for k := range f.known {
		if k.n < i {
			delete(f.known, k)
		}
	}
}

// silent tells whether a message has nothing that could be learnt.
func silent(m *jinja.Dict) bool {
	for k, v := range m.All {
		if k == "role" || k == "name" || v == "" {
			continue
		}
		if l, ok := v.(*jinja.List); !ok || len(l.Items) > 0 {
			return false
		}
	}
	return true
}

// byPrefixes finds message i between what is rendered before it and what is rendered with it.
func (f *finder) byPrefixes(i int) (Span, bool) {
	before, ok := f.upTo(i, true)
	if !ok || !strings.HasPrefix(f.text, before) {
		return Span{}, false
	}
	with, ok := f.upTo(i+1, false)
	if !ok || f.prompts(i, with) {
		return Span{}, false
	}
	if !strings.HasPrefix(f.text, with) {
		// Some templates write the end of the text behind the last answer, not behind each.
		if with, ok = strings.CutSuffix(with, f.c.eos); !ok || f.c.eos == "" || !strings.HasPrefix(f.text, with) {
			return Span{}, false
		}
	}
	if len(with) <= len(before) {
		return Span{}, false
	}
	s := Span{len(before), len(with)}
	s = f.trimmed(s, contentOf(f.c.messages[i]))
	return s, s.To > s.From
}

// prompts tells whether the template ends every text with a generation prompt, asked or not: then nothing says where message i ends. with is what the
// conversation renders to with that message.
func (f *finder) prompts(i int, with string) bool {
	n := max(i, 1)
	asked, ok := f.upTo(n, true)
	if before, ok2 := f.upTo(n, false); !ok || !ok2 || before != asked {
		return false
	}
	question := jinja.NewDict()
	question.Set("role", "user")
	question.Set("content", "Why?")
	after, ok := f.render(append(append([]jinja.Value{}, f.c.messages[:i+1]...), question), false)
	content := contentOf(f.c.messages[i])
	tail := ending(with, 32*enough)
	if n := strings.LastIndex(with, lastLine(content)); content != "" && n >= 0 {
		if len(lastLine(content)) < enough {
			n = max(0, n-8*enough) // a word that may be anywhere
		}
		tail = with[n:]
	}
	return ok && !strings.Contains(after, tail) && !strings.Contains(after, strings.TrimSuffix(tail, f.c.eos))
}

const spaces = " \t\r\n"

// byAlignment finds message i where the whole reads as what is rendered before it ends, and as what is rendered with it ends.
func (f *finder) byAlignment(i int) (Span, bool) {
	content := contentOf(f.c.messages[i])
	from, ok := f.begin(i, content)
	if !ok {
		return Span{}, false
	}
	window := len(f.text)
	if i+1 < len(f.c.messages) {
		// The turn is over where the next message's text begins.
		next := contentOf(f.c.messages[i+1])
		if n := strings.Index(f.text[from:], next); len(next) >= enough && n > 0 && !strings.Contains(content, next) {
			window = from + n
		}
	}
	with, ok := f.upTo(i+1, false)
	if !ok || f.prompts(i, with) {
		return Span{}, false
	}
	bare := strings.TrimRight(strings.TrimSuffix(with, f.c.eos), spaces)
	last := lastToken(strings.TrimRight(with, spaces))
	for _, end := range []string{with, strings.TrimSuffix(with, f.c.eos), bare, strings.TrimSuffix(bare, last)} {
		n, alike := align(f.text[from:window], end)
		if n == 0 || alike < n && !holds(end[len(end)-alike:], content) {
			continue
		}
		to := from + n
		if end == strings.TrimSuffix(bare, last) && last != "" {
			// A template may close the last turn with one token and the others with another.
			token := firstToken(f.text[to:])
			if token == "" {
				continue
			}
			to += len(token)
		}
		return f.trimmed(Span{from, to}, content), true
	}
	return Span{}, false
}

// enough bytes in common tell that two texts are about the same turn.
const enough = 8

// holds tells whether the end of a text has enough of a message in it.
func holds(end, content string) bool {
	if content == "" {
		return len(end) >= 4*enough
	}
	return strings.Contains(end, ending(lastLine(content), 8*enough))
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

// ending is the last n bytes of a text.
func ending(s string, n int) string { return s[max(0, len(s)-n):] }

// begin is where the text of message i begins.
func (f *finder) begin(i int, content string) (int, bool) {
	before, ok := f.upTo(i, false)
	prompt, ok2 := f.upTo(i, true)
	at := len(before)
	if ok && ok2 && i > 0 && !strings.HasPrefix(f.text, before) {
		n, alike := align(f.text[f.end:], before)
		ok = n > 0 && holds(before[len(before)-alike:], contentOf(f.c.messages[i-1]))
		at = f.end + n
	}
	if !ok || !ok2 || at < f.end || !strings.HasPrefix(prompt, before) {
		return f.find(content)
	}
	prompt = prompt[len(before):]
	n := common(prompt, f.text[at:])
	// What differs may begin alike: <think> and </think>.
	for n > 0 && n < len(prompt) && strings.IndexByte(">]: \n", prompt[n-1]) < 0 {
		n--
	}
	return at + n, true
}

// find is where a message's text is next in the whole. A short one must stand alone, as a turn does.
func (f *finder) find(content string) (int, bool) {
	for at := f.end; content != ""; {
		n := strings.Index(f.text[at:], content)
		if n < 0 {
			break
		}
		at += n
		before := strings.TrimSuffix(f.text[:at], " ")
		after := f.text[at+len(content):]
		opened := before == "" || strings.IndexByte(">]:\n", before[len(before)-1]) >= 0
		closed := after == "" || strings.IndexByte("<[\n", after[0]) >= 0
		if len(content) >= enough || opened && closed {
			return at, true
		}
		at++
	}
	return 0, false
}

// closed is where the turn that ends at the byte given ends with the token that closes it, which some templates write at the next question only. What
// stands before the first question tells that token from how questions begin.
func (f *finder) closed(i, end int) int {
	if i+1 == len(f.c.messages) {
		return end
	}
	if f.role(i+1) != "user" {
		return end
	}
	first := 0
	for first < i && f.role(first) != "user" {
		first++
	}
	before, question := contentOf(f.c.messages[first]), contentOf(f.c.messages[i+1])
	n, m := strings.Index(f.text, before), strings.Index(f.text[end:], question)
	if first == i || before == "" || question == "" || n < 0 || m < 0 {
		return end
	}
	between := f.text[end : end+m]
	same := 0
	for same < len(between) && same < n && between[len(between)-1-same] == f.text[n-1-same] {
		same++
	}
	header := strings.IndexByte(between[len(between)-same:], '<')
	if header < 0 {
		return end
	}
	token := strings.TrimRight(between[:len(between)-same+header], spaces)
	if bare := strings.TrimLeft(token, spaces); bare == "" || bare != firstToken(bare) || bare == f.c.bos {
		return end
	}
	return end + len(token)
}

func (f *finder) role(i int) any {
	role, _ := f.c.messages[i].(*jinja.Dict).Get("role")
	return role
}

// trimmed is a turn without the whitespace behind what ends it.
func (f *finder) trimmed(s Span, content string) Span {
	if tail := f.text[s.From:s.To]; content == "" || !strings.HasSuffix(strings.TrimSpace(tail), content) {
		s.To = s.From + len(strings.TrimRight(tail, spaces))
	}
	return s
}

// contentOf is the text of a message, or of its last part.
func contentOf(m jinja.Value) string {
	content, _ := m.(*jinja.Dict).Get("content")
	if parts, ok := content.(*jinja.List); ok {
		for _, p := range parts.Items {
			if d, ok := p.(*jinja.Dict); ok {
				if text, ok := d.Get("text"); ok {
					content = text
				}
			}
		}
	}
	s, _ := content.(string)
	return strings.TrimSpace(s)
}

// firstToken is <...> at the front of a text, lastToken at its end.
func firstToken(s string) string {
	if end := strings.IndexByte(s, '>'); strings.HasPrefix(s, "<") && end > 0 && !strings.Contains(s[1:end], "<") {
		return s[:end+1]
	}
	return ""
}

func lastToken(s string) string {
	if at := strings.LastIndexByte(s, '<'); strings.HasSuffix(s, ">") && at >= 0 && !strings.Contains(s[at:len(s)-1], ">") {
		return s[at:]
	}
	return ""
}

// align finds the beginning s[:n] of s that ends as like does: one that like ends with as a whole, else the one that is alike over the most bytes;
// alike says over how many.
func align(s, like string) (n, alike int) {
	like = like[max(0, len(like)-len(s)):]
	// Z: how far what stands at i reads, backwards, as like does.
	at := func(i int) int {
		switch {
		case i < len(like):
			return int(like[len(like)-1-i])
		case i == len(like):
			return -1
		}
		return int(s[len(s)-1-(i-len(like)-1)])
	}
	total := len(like) + 1 + len(s)
	z := make([]int32, total)
	for i, l, r := 1, 0, 0; i < total; i++ {
		if i < r {
			z[i] = min(int32(r-i), z[i-l])
		}
		for i+int(z[i]) < total && at(int(z[i])) == at(i+int(z[i])) {
			z[i]++
		}
		if i+int(z[i]) > r {
			l, r = i, i+int(z[i])
		}
		if end, same := total-i, int(z[i]); i > len(like) && same > 0 && (n == 0 || alike < n) && (same == end || same >= alike) {
			n, alike = end, same
		}
	}
	return n, alike
}

// common is how many bytes two texts begin with alike.
func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
