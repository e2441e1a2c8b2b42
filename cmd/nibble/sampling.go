package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/formats/modelcard"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/engine"
)

// samplingFlags say how tokens are chosen and when that ends.
type samplingFlags struct {
	engine.Sampling
	maxTokens int
	stop      []string

	set *pflag.FlagSet
}

// samplingNames are the flags that generation_config.json has a say in, in the order in
// which they take effect.
var samplingNames = []string{"repetition-penalty", "temperature", "top-k", "top-p", "min-p"}

func (o *samplingFlags) flags(f *pflag.FlagSet, maxTokens int) {
	o.set = f
	f.IntVar(&o.maxTokens, "max-tokens", maxTokens, "tokens to generate at most")
	f.Float64Var(&o.Temperature, "temperature", 0, "0 takes the most likely token, 1 samples as the model says (also --temp)")
	f.IntVar(&o.TopK, "top-k", 0, "sample from the k most likely tokens; 0 is all")
	f.Float64Var(&o.TopP, "top-p", 1, "sample from the most likely tokens that together have this probability")
	f.Float64Var(&o.MinP, "min-p", 0, "sample from tokens with at least this share of the greatest probability")
	f.Float64Var(&o.RepetitionPenalty, "repetition-penalty", 1, "make tokens that were there less likely; 1 does not")
	f.IntVar(&o.RepetitionLastN, "repetition-last-n", 0, "of how many of the last tokens; 0 is all, the prompt's too")
	f.Uint64Var(&o.Seed, "seed", 0, "makes sampling repeatable")
	f.StringArrayVar(&o.stop, "stop", nil, "a text to stop at, which is not printed; may be given again")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "temp" {
			name = "temperature"
		}
		return pflag.NormalizedName(name)
	})
}

// take takes what the model's files say where no flag says otherwise.
func (o *samplingFlags) take(s *generationSettings) error {
	for name, value := range s.sampling {
		if o.set.Changed(name) {
			continue
		}
		v := o.set.Lookup(name).Value
		if err := v.Set(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		s.sampling[name] = v.String()
	}
	// Who asks for a choice among tokens wants one.
	if !o.set.Changed("temperature") && s.sampling["temperature"] == "" && slices.ContainsFunc([]string{"top-k", "top-p", "min-p"}, o.set.Changed) {
		o.Temperature = 1
	}
	return nil
}

// check returns an error for values that cannot be.
func (o *samplingFlags) check() error {
	if o.maxTokens < 0 {
		return badUsage(fmt.Errorf("--max-tokens %d: want 0 or more", o.maxTokens))
	}
	if slices.Contains(o.stop, "") {
		return badUsage(fmt.Errorf("--stop: an empty text is everywhere"))
	}
	return badUsage(o.Check())
}

// likeliest is how tokens are chosen where nothing is said about it.
const likeliest = "the most likely token"

// describe says how tokens are chosen, and which of it is the model's wish.
func (o *samplingFlags) describe(s *generationSettings) string {
	if o.Temperature == 0 {
		if o.RepetitionPenalty == 1 {
			return likeliest
		}
		return likeliest + o.said(s, samplingNames[:1], ", ")
	}
	return "sampling" + o.said(s, samplingNames, " ")
}

func (o *samplingFlags) said(s *generationSettings, names []string, before string) string {
	var parts, own []string
	for _, name := range names {
		f := o.set.Lookup(name)
		if f.Value.String() == f.DefValue && name != "temperature" {
			continue
		}
		text := strings.ReplaceAll(name, "-", " ") + " " + f.Value.String()
		if name == "top-k" || name == "top-p" || name == "min-p" {
			text = name + " " + f.Value.String()
		}
		if s.sampling[name] == f.Value.String() && !o.set.Changed(name) {
			own = append(own, text)
		} else {
			parts = append(parts, text)
		}
	}
	text := ""
	if len(own) > 0 {
		text = strings.Join(own, ", ") + " (as " + filepath.Base(s.path) + " says)"
	}
	if len(parts) > 0 && text != "" {
		text += ", "
	}
	text += strings.Join(parts, ", ")
	if text == "" {
		return ""
	}
	return before + text
}

// generationSettings are what a model's files say of generating text.
type generationSettings struct {
	path     string
	sampling map[string]string // by flag
	ends     []int32           // the tokens that end a text
}

// maxGenerationConfig bounds generation_config.json.
const maxGenerationConfig = 1 << 20

// generationSettings returns what a model's files say, of which the vocabulary is v.
func (m *model) generationSettings(v *vocab.Vocab) (*generationSettings, error) {
	s := &generationSettings{path: filepath.Join(m.Path, modelcard.GenerationName), sampling: make(map[string]string)}
	var text []byte
	var err error
	if m.gguf != nil {
		s.path = m.Path
		text, err = m.gguf.GenerationConfigJSON()
	} else {
		text, err = safeio.ReadFile(s.path, maxGenerationConfig)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if text != nil {
		if err := s.read(text); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", s.path, tensor.ErrMalformed, err)
		}
	}
	if m.HF != nil {
		var config struct {
			EOS tokenIDs `json:"eos_token_id"`
		}
		// That config.json is sound is known; what else it has there is of no use here.
		if json.Unmarshal(m.HF.Config(), &config, jsontext.AllowDuplicateNames(true)) == nil && len(s.ends) == 0 {
			s.ends = config.EOS
		}
	}
	if m.gguf != nil {
		for _, key := range []string{"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"} {
			if id, ok := tensor.Lookup[uint32](m.Meta(), key); ok {
				s.ends = append(s.ends, int32(id))
			}
		}
	}
	s.ends = append(s.ends, v.EOS)
	s.ends = slices.DeleteFunc(s.ends, func(id int32) bool { return id < 0 || int(id) >= len(v.Pieces) })
	slices.Sort(s.ends)
	s.ends = slices.Compact(s.ends)
	return s, nil
}

func (s *generationSettings) read(text []byte) error {
	var values map[string]jsontext.Value
	if err := json.Unmarshal(text, &values, jsontext.AllowDuplicateNames(true)); err != nil {
		return err
	}
	var g struct {
		DoSample bool     `json:"do_sample"`
		EOS      tokenIDs `json:"eos_token_id"`
	}
	if err := json.Unmarshal(text, &g, jsontext.AllowDuplicateNames(true)); err != nil {
		return err
	}
	s.ends = g.EOS
	if g.DoSample {
		s.sampling["temperature"] = "1" // transformers' default
	}
	for _, name := range samplingNames {
		v, ok := values[strings.ReplaceAll(name, "-", "_")]
		// Without do_sample transformers takes the most likely token, whatever else is said.
		if !ok || v.Kind() == 'n' || !g.DoSample && name != "repetition-penalty" {
			continue
		}
		number := strings.TrimSpace(string(v))
		if v.Kind() != '0' {
			return fmt.Errorf("%s: want a number", strings.ReplaceAll(name, "-", "_"))
		}
		if name == "top-k" {
			number = strings.TrimSuffix(number, ".0")
		}
		s.sampling[name] = number
	}
	return s.check()
}

// check returns an error for settings that no flags could have.
func (s *generationSettings) check() error {
	var o samplingFlags
	o.flags(pflag.NewFlagSet("", pflag.ContinueOnError), 0)
	if err := o.take(s); err != nil {
		return err
	}
	return o.Check()
}

// tokenIDs are one token or a list of them.
type tokenIDs []int32

func (t *tokenIDs) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '[':
		return json.UnmarshalDecode(dec, (*[]int32)(t))
	}
	var id int32
	if err := json.UnmarshalDecode(dec, &id); err != nil {
		return err
	}
	*t = tokenIDs{id}
	return nil
}

// turnEnds are the special tokens that templates end a message with, as llama.cpp knows
// them. A model that was trained on one of these templates may have files that name only
// the end of a document.
var turnEnds = []string{
	"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<end_of_utterance>",
	"<EOT>", "_<EOT>", "[EOT]", "[EOS]", "</s>", "<eos>", "<turn|>", "<|return|>", "<|call|>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
}

// chatEnds returns the tokens that end an answer: those that end a text, and those that
// templates end a message with.
func (s *generationSettings) chatEnds(v *vocab.Vocab) []int32 {
	ends := slices.Clone(s.ends)
	for i, p := range v.Pieces {
		if p.Type != vocab.Normal && p.Type != vocab.Byte && slices.Contains(turnEnds, p.Text) {
			ends = append(ends, int32(i))
		}
	}
	slices.Sort(ends)
	return slices.Compact(ends)
}

// A stopper passes text on up to the first of some texts.
type stopper struct {
	stops []string
	held  string // what may be the beginning of one
}

// next returns what can be shown of the text so far that was not returned before, and
// whether one of the texts has come, at the earliest place of any.
func (s *stopper) next(text string) (show string, stopped bool) {
	s.held += text
	at := -1
	for _, stop := range s.stops {
		if i := strings.Index(s.held, stop); i >= 0 && (at < 0 || i < at) {
			at = i
		}
	}
	if at >= 0 {
		show, s.held = s.held[:at], ""
		return show, true
	}
	n := len(s.held)
	for _, stop := range s.stops {
		for k := min(len(stop)-1, len(s.held)); k > 0; k-- {
			if strings.HasSuffix(s.held, stop[:k]) {
				n = min(n, len(s.held)-k)
				break
			}
		}
	}
	show, s.held = s.held[:n], s.held[n:]
	return show, false
}

// flush returns what is left at the end.
func (s *stopper) flush() string {
	text := s.held
	s.held = ""
	return text
}
