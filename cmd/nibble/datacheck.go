package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/data/chat"
	"github.com/seed18967229/nibble/train/data/records"
)

// The outcomes of a check.
const (
	passed = "ok"
	warned = "warn"
	failed = "fail"
)

// finding is one thing that was looked at.
type finding struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Found  string `json:"found"`
	Todo   string `json:"todo,omitempty"`
}

func (f finding) write(w io.Writer, colour bool) {
	status := fmt.Sprintf("%-4s", f.Status)
	if code := map[string]string{passed: colourTrained, warned: colourWarning, failed: colourFailed}[f.Status]; colour {
		status = code + status + colourOff
	}
	fmt.Fprintf(w, "%s  %-17s  %s\n", status, f.Name, errorText(errors.New(visible(f.Found))))
	if f.Todo != "" {
		fmt.Fprintf(w, "%25s%s\n", "-> ", visible(f.Todo))
	}
}

// doctor looks at data that a model is to be trained on.
type doctor struct {
	r     *dataCheckResult
	o     data.Options
	vocab *vocab.Vocab

	rows, systems, empty, chats, texts int64
	emptyAt                            string
	seen                               map[uint64]struct{} // hashes of rows
	seed                               maphash.Seed
	doubles                            int64
	doubleAt                           string
	roles                              map[string]int64
	unread                             bool // a file cannot be read
}

// most is how many rows are remembered to find them again.
const mostSeen = 1 << 24

func (d *doctor) find(name, status, todo, found string, args ...any) {
	if status == passed {
		todo = ""
	}
	d.r.Checks = append(d.r.Checks, finding{name, status, fmt.Sprintf(found, args...), todo})
	switch status {
	case failed:
		d.r.Failed++
	case warned:
		d.r.Warnings++
	}
}

// broken notes an error as what was found.
func (d *doctor) broken(name string, err error) {
	d.find(name, failed, cmp.Or(hint.Of(err), "mend it, or leave it out"), "%s", err.Error())
}

// shareText writes n of all.
func shareText(n, all int64) string {
	if n == 0 {
		return "none of " + thousands(all)
	}
	return fmt.Sprintf("%s of %s (%s)", thousands(n), thousands(all), percentage(float64(n)/float64(all)))
}

// unless chooses a status.
func unless(ok bool, otherwise string) string {
	if ok {
		return passed
	}
	return otherwise
}

// readable reports whether all files could be read.
func (d *doctor) readable() bool { return !d.unread }

// survey reads all rows as they are in their files, whatever is made of them.
func (d *doctor) survey(ctx context.Context, sources []data.Source) error {
	d.seen, d.roles, d.seed = map[uint64]struct{}{}, map[string]int64{}, maphash.MakeSeed()
	for _, s := range sources {
		files := []string{s.Path}
		if info, err := os.Stat(s.Path); err != nil {
			return err
		} else if info.IsDir() {
			train, valid, test, err := records.Find(s.Path)
			if err != nil {
				d.unread = true
				d.broken("files", err)
				continue
			}
			files = slices.Concat(train, valid, test)
		}
		for _, file := range files {
			if err := d.surveyFile(ctx, file); err != nil && !isInputError(err) {
				return err
			} else if err != nil {
				d.unread = true
				d.broken("rows", err)
			}
		}
	}
	if d.unread {
		return nil
	}
	if d.rows == 0 {
		d.find("rows", passed, "", "plain text in UTF-8, which is cut into windows")
		return nil
	}
	d.find("rows", passed, "", "all %s can be read: JSON objects in UTF-8, no key twice", thousands(d.rows))
	d.find("duplicates", unless(d.doubles == 0, warned), "remove what is there twice, unless it is meant to count twice",
		"%s rows are there before%s", shareText(d.doubles, d.rows), d.doubleAt)
	d.find("completions", unless(d.empty == 0, warned), "remove these rows, or fill them: they teach to say nothing",
		"%s rows have an empty answer%s", shareText(d.empty, d.rows), d.emptyAt)
	if d.chats == 0 {
		return nil
	}
	var strange, all []string
	for _, role := range slices.Sorted(maps.Keys(d.roles)) {
		all = append(all, fmt.Sprintf("%s %s", role, thousands(d.roles[role])))
		if !slices.Contains(knownRoles, strings.ToLower(role)) {
			strange = append(strange, role)
		}
	}
	d.find("roles", unless(len(strange) == 0, warned), "rename them: templates know system, user, assistant and tool: "+strings.Join(strange, ", "), "turns of %s", strings.Join(all, ", "))
	return nil
}

func (d *doctor) surveyFile(ctx context.Context, path string) error {
	r, err := records.Open(path, records.Options{ScratchDir: d.o.ScratchDir})
	if err != nil {
		return err
	}
	defer r.Close()
	if r.Text() {
		d.texts++
		_, err := io.Copy(io.Discard, struct{ io.Reader }{r})
		return err
	}
	for {
		row, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		d.row(row.Value, func() string { return ", first " + r.Where(row.Line) })
	}
}

// row looks at one row; where says where it is.
func (d *doctor) row(v jsontext.Value, where func() string) {
	d.rows++
	sum := maphash.Bytes(d.seed, v)
	if _, there := d.seen[sum]; there {
		if d.doubles++; d.doubles == 1 {
			d.doubleAt = where()
		}
	} else if len(d.seen) < mostSeen {
		d.seen[sum] = struct{}{}
	}
	var row map[string]jsontext.Value
	if json.Unmarshal(v, &row) != nil {
		return // it is an object, as records says
	}
	empty, system, isChat := false, false, false
	for key, value := range row {
		if slices.Contains(answerKeys, key) || key == d.o.Fields.Completion && key != "" {
			empty = empty || string(value) == `""`
		}
		var turns []surveyedTurn
		if value.Kind() != '[' || json.Unmarshal(value, &turns) != nil {
			continue
		}
		for _, t := range turns {
			role := strings.ToLower(t.Role + t.From)
			if role == "" {
				continue
			}
			isChat = true
			if _, known := d.roles[role]; known || len(d.roles) < 100 {
				d.roles[role]++
			}
			system = system || role == "system"
			empty = empty || slices.Contains(answering, role) && string(t.Content) == `""` && t.Calls == nil || slices.Contains(answering, role) && string(t.Value) == `""`
		}
	}
	if isChat {
		d.chats++
	}
	if system {
		d.systems++
	}
	if empty {
		if d.empty++; d.empty == 1 {
			d.emptyAt = where()
		}
	}
}

// surveyedTurn is a turn of a chat in the spellings that there are.
type surveyedTurn struct {
	Role    string         `json:"role"`
	From    string         `json:"from"`
	Content jsontext.Value `json:"content"`
	Value   jsontext.Value `json:"value"`
	Calls   jsontext.Value `json:"tool_calls"`
}

var (
	// answerKeys are what an answer is usually called.
	answerKeys = []string{"completion", "response", "output", "answer", "text"}

	answering  = []string{"assistant", "gpt", "chatbot", "model", "bot"}
	knownRoles = slices.Concat(answering, []string{"system", "developer", "user", "human", "tool", "function", "ipython", "observation", "function_response", "function_call"})
)

// template looks at the chat template, if rows need one.
func (d *doctor) template() {
	used := d.chats > 0 || d.o.ApplyTemplate
	if slices.ContainsFunc(d.r.Checks, func(f finding) bool { return f.Name == "chat template" }) {
		return // it cannot be read
	}
	if err := d.o.NoTemplate; err != nil {
		d.find("chat template", unless(!used, failed), hint.Of(err), "%v", err)
		return
	}
	if d.o.Template == nil {
		d.find("chat template", unless(!used, failed), "give one with --chat-template, a file or a name such as chatml: that of the instruct model of the same family",
			"the model has none%s", map[bool]string{true: ", and the rows are chats", false: "; these rows need none"}[used])
		return
	}
	bad := warned
	if used {
		bad = failed
	}
	in := d.probe(turnOf("user", "question"), turnOf("assistant", "answer"))
	r, err := d.o.Template.Render(in)
	if err == nil && (!strings.Contains(r.Text, "question") || !strings.Contains(r.Text, "answer")) {
		err = fmt.Errorf("the text of a question and an answer is not in what it makes of them")
	}
	if err != nil {
		d.find("chat template", bad, "give another with --chat-template FILE", "it does not render a question and an answer: %v", err)
		return
	}
	d.find("chat template", passed, "", "it renders%s", map[bool]string{true: "", false: "; these rows do not use it"}[used])
	_, spans, err := d.o.Template.Spans(in)
	switch {
	case err != nil:
		d.find("assistant's turns", bad, cmp.Or(hint.Of(err), "give another with --chat-template FILE"), "%v", err)
	case len(spans) == 0:
		d.find("assistant's turns", bad, "put {% generation %} around what the assistant writes", "the template marks nothing of an answer")
	case d.o.Template.Marked():
		d.find("assistant's turns", passed, "", "marked by the template with {%% generation %%}")
	default:
		d.find("assistant's turns", passed, "", "found by rendering the chat up to each of them")
	}
	d.system()
}

// system looks at whether the template has a place for a system turn.
func (d *doctor) system() {
	r, err := d.o.Template.Render(d.probe(turnOf("system", "instructions"), turnOf("user", "question"), turnOf("assistant", "answer")))
	takes := err == nil && strings.Contains(r.Text, "instructions")
	switch {
	case takes:
		d.find("system turns", passed, "", "the template has a place for them")
	case d.systems == 0:
		d.find("system turns", passed, "", "the template has no place for them, and no row has one")
	default:
		d.find("system turns", failed, "put the text of system turns into the first turn of the user, or give another --chat-template",
			"the template has no place for them, and %s rows have one", shareText(d.systems, d.rows))
	}
}

func turnOf(role, text string) map[string]any { return map[string]any{"role": role, "content": text} }

func (d *doctor) probe(turns ...map[string]any) chat.Input {
	in := chat.Input{Vars: d.o.TemplateVars, Now: d.o.Now, BOS: d.o.Tokenizer.Piece(d.vocab.BOS), EOS: d.o.Tokenizer.Piece(d.vocab.EOS)}
	for _, t := range turns {
		in.Messages = append(in.Messages, t)
	}
	return in
}

// tally is what all examples together show.
type tally struct {
	examples, tokens, trained int64
	ended, ends               int64 // examples whose end is trained; that have one at all
	cut                       int64 // that lost their end
	unknown, bytes            int64
	lengths                   counts
}

// examples looks at what is made of the rows: set, or why there is none.
func (d *doctor) examples(ctx context.Context, set *data.Set, err error, shown int) error {
	if err != nil {
		d.broken("examples", err)
		return nil
	}
	var stats data.Stats
	for _, f := range set.Files {
		s := f.Stats
		d.r.Files = append(d.r.Files, checkedFile{f.Path, f.Part, f.What, s.Examples, s.Tokens, s.Labels, s.Truncated, s.Dropped, s.Cut, s.Longest})
		stats.Examples += s.Examples
		stats.Truncated += s.Truncated
		stats.Dropped += s.Dropped
		stats.Cut += s.Cut
		stats.Doubled += s.Doubled
	}
	d.r.total = set.Train.Len()
	t := &tally{lengths: counts{}}
	for i := range set.Train.Len() {
		e, err := set.Train.Example(i)
		if err != nil {
			return err
		}
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if i < shown {
			d.r.Examples = append(d.r.Examples, show(e, &d.o))
		}
		d.count(t, e)
	}
	d.r.Lengths = t.lengths.list()
	for _, f := range set.Files {
		if f.Part == "train" {
			t.cut += int64(f.Stats.Truncated)
		}
	}
	d.judge(t, stats)
	return nil
}

func (d *doctor) count(t *tally, e data.Example) {
	t.examples++
	t.tokens += int64(len(e.Tokens))
	t.trained += int64(e.Labels())
	t.lengths.bucket(len(e.Tokens)).Tokens++
	t.lengths.bucket(e.Labels()).Trained++
	for _, id := range e.Tokens {
		switch p := d.vocab.Pieces[id]; p.Type {
		case vocab.Unknown:
			t.unknown++
		case vocab.Byte:
			if b, ok := p.Byte(); ok && b != '\n' && b != '\r' && b != '\t' {
				t.bytes++
			}
		}
	}
	e.Documents(func(from, to int) {
		t.ends++
		if d.endsTrained(e, from, to) {
			t.ended++
		}
	})
}

// endsTrained reports whether the last thing that is trained of a document is a special
// token, such as EOS or that of the end of a turn; white space may follow.
func (d *doctor) endsTrained(e data.Example, from, to int) bool {
	for j := to - 1; j > from; j-- {
		if e.Loss != nil && !e.Loss[j] {
			continue
		}
		id := e.Tokens[j]
		if id == d.vocab.EOS || d.vocab.Pieces[id].Type == vocab.Control {
			return true
		}
		if strings.TrimSpace(d.o.Tokenizer.Decode([]int32{id})) != "" {
			return false
		}
	}
	return false
}

// judge says what the examples show.
func (d *doctor) judge(t *tally, stats data.Stats) {
	rows := int64(stats.Examples + stats.Dropped)
	long := int64(stats.Truncated + stats.Dropped)
	d.find("length", unless(long == 0, warned), fmt.Sprintf("raise --max-seq-length above %d, or shorten the rows", d.o.MaxSeqLength),
		"%s examples have more than %d tokens; tokens lost: %s", shareText(long, rows), d.o.MaxSeqLength, thousands(stats.Cut))
	d.find("trained tokens", unless(t.trained > 0, failed), "see what is trained of an example with --show 3", "%s tokens", shareText(t.trained, t.tokens))
	d.beginning(stats)
	if d.rows > 0 && d.texts == 0 {
		d.ending(t)
	}
	if d.vocab.EOS == vocab.None {
		d.find("EOS", warned, "set eos_token in the model's tokenizer", "the model has no such token, and cannot learn to stop with it")
	}
	odd := t.unknown*1000 > t.tokens || t.bytes*20 > t.tokens
	d.find("vocabulary", unless(!odd, warned), "the tokenizer hardly knows this language: training takes more tokens and learns less",
		"%s tokens are unknown, %s are single bytes of characters that have no token", shareText(t.unknown, t.tokens), shareText(t.bytes, t.tokens))
}

// beginning says whether a template writes BOS more often than it is meant.
func (d *doctor) beginning(stats data.Stats) {
	d.find("double BOS", unless(stats.Doubled == 0, warned), "remove the BOS token from the template, where it is there twice; one is left out here, but other programs may not do that",
		"the template begins %s examples with it twice", shareText(int64(stats.Doubled), int64(stats.Examples+stats.Dropped)))
}

// ending says whether an end is learnt.
func (d *doctor) ending(t *tally) {
	status := passed
	whole := t.ends - t.cut
	switch {
	case t.ended == 0:
		status = failed
	case t.ended < whole:
		status = warned
	}
	todo := "without it the model does not learn to stop: have the template write the EOS token, or the token that ends a turn, within what the assistant writes"
	if t.ended == 0 && whole <= 0 {
		todo = "without it the model does not learn to stop: raise --max-seq-length, which cuts all of them off"
	}
	d.find("end of text", status, todo,
		"%s examples end with a special token that is trained", shareText(t.ended, t.ends))
}
