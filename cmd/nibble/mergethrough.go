package main

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/modelcard"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
)

// parseThrough reads the value of --through: a type of bitsandbytes, of 4 bits with a
// block size if that is not the usual one.
func (o *outputOptions) parseThrough() (encoding, bnb.Options, error) {
	name, size, sized := strings.Cut(strings.ToLower(o.through), ":")
	d, ok := bnbTypes[name]
	if !ok {
		return encoding{}, bnb.Options{}, badUsage(hint.Add(fmt.Errorf("--through %s is no type of bitsandbytes", o.through),
			"there are: %s; nf4:128 is one with another block size", strings.Join(slices.Sorted(maps.Keys(bnbTypes)), ", ")))
	}
	flags := bnbOptions{noDoubleQuant: o.bnb.noDoubleQuant, skip: o.bnb.skip, experts: o.bnb.experts}
	if sized {
		n, err := strconv.Atoi(size)
		if err != nil || n == 0 {
			return encoding{}, bnb.Options{}, badUsage(hint.Add(fmt.Errorf("--through %s: %q is no block size", o.through, size), "as in nf4:64"))
		}
		flags.blockSize = n
	}
	opts, err := flags.parse(d)
	return encoding{dtype: d, block: opts.BlockSize, double: opts.DoubleQuant}, opts, err
}

// through returns the tensors of the view as they are behind a checkpoint quantized with
// those options, which says what weights are. The Account knows the errors of those that
// have been read.
func (m *model) through(opts bnb.Options) (tensor.Source, *bnb.Account, error) {
	if m.quantized() {
		return nil, nil, badUsage(hint.Add(fmt.Errorf("--through: the weights of %s are quantized already", m.Path), "leave out --through, or give the original as --base"))
	}
	// Of a model with other parts than text, the text model alone.
	text := *m
	text.view = &convert.View{Source: m.view.Source, Origins: m.view.Origins}
	b, err := newBnbInput(&text, text.view, &opts)
	if err != nil {
		return nil, nil, err
	}
	quantized, account, err := bnb.Through(b.src, codecs, opts)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	turned, err := (&convert.View{Source: quantized, Origins: m.view.Origins}).InOut(m.arch, codecs)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	var entries []tensor.Entry
	for info := range m.view.All() { // in its order
		now, err := turned.Info(info.Name)
		if err != nil {
			return nil, nil, err
		}
		entries = append(entries, tensor.Forward(turned, now, info.Name))
	}
	src, err := tensor.NewTable(m.view.Meta(), entries)
	return src, account, err
}

// encodingOf returns how a weight of the model's view is quantized; false if it is not,
// or in a way that is only read here.
func (m *model) encodingOf(name string) (encoding, bool) {
	from := m.view.Origin(name).From
	if len(from) == 0 {
		return encoding{}, false
	}
	src := m.original()
	info, err := src.Info(from[0])
	if err != nil {
		return encoding{}, false
	}
	switch d := info.DType; {
	case d == tensor.NF4, d == tensor.FP4:
		h, err := nf4.Describe(src, info.Name)
		return encoding{dtype: d, block: int(h.BlockSize), double: h.Double}, err == nil
	case d == tensor.INT8:
		return encoding{dtype: d}, true
	case blockType(d):
		return encoding{dtype: d}, writable(d) == nil
	}
	return encoding{}, false
}

// What the files of an adapter say of a base that was quantized when it was trained.
var (
	// PEFT's model card had the configuration of bitsandbytes as a list, axolotl's has
	// its own as YAML.
	loadedIn4 = regexp.MustCompile(`(?mi)^[\s*#-]*(load_in_4bit|load_in_8bit):\s*true\b`)
	quantType = regexp.MustCompile(`(?mi)^[\s*#-]*bnb_4bit_quant_type:\s*['"]?(nf4|fp4)\b`)
	qlora     = regexp.MustCompile(`(?mi)^[\s*#-]*adapter:\s*['"]?qlora\b`)

	// As Unsloth names its checkpoints, and others.
	namedBnb = regexp.MustCompile(`(?i)(bnb[-_.]?4bit|[-_.](nf4|fp4)\b|bnb[-_.]?8bit)`)
)

// maxCard is the largest README.md that is looked into.
const maxCard = 4 << 20

// trainedOn returns what the base of an adapter was quantized to when it was trained, and
// what says so; false if nothing does.
func trainedOn(path string, c *peft.Config) (encoding, string, bool) {
	of := func(kind string) encoding {
		d := bnbTypes[cmp.Or(strings.ToLower(kind), "nf4")]
		if d == tensor.INT8 {
			return encoding{dtype: d}
		}
		return encoding{dtype: d, block: nf4.DefaultBlock, double: true}
	}
	if base := localBase(c.BaseModel); base != "" {
		text, err := safeio.ReadFile(filepath.Join(base, hf.ConfigName), maxConfig)
		var config struct {
			Quantization struct {
				Method string `json:"quant_method"`
				Four   bool   `json:"load_in_4bit"`
				Type   string `json:"bnb_4bit_quant_type"`
			} `json:"quantization_config"`
		}
		if err == nil && json.Unmarshal(text, &config) == nil {
			q := config.Quantization
			if q.Method == "bitsandbytes" && !q.Four {
				return of("int8"), base, true
			}
			if _, ok := bnbTypes[cmp.Or(strings.ToLower(q.Type), "nf4")]; ok && q.Method == "bitsandbytes" {
				return of(q.Type), base, true
			}
			return encoding{}, "", false
		}
	}
	if kind := namedBnb.FindString(c.BaseModel); kind != "" {
		name := "nf4"
		switch {
		case strings.Contains(kind, "8"):
			name = "int8"
		case strings.Contains(strings.ToLower(kind), "fp4"):
			name = "fp4"
		}
		return of(name), fmt.Sprintf("base_model_name_or_path %q", c.BaseModel), true
	}
	card, err := safeio.ReadFile(filepath.Join(path, modelcard.ReadmeName), maxCard)
	if err != nil {
		return encoding{}, "", false
	}
	said := modelcard.ReadmeName + " of the adapter"
	if m := loadedIn4.FindSubmatch(card); m != nil {
		if strings.EqualFold(string(m[1]), "load_in_8bit") {
			return of("int8"), said, true
		}
		kind := "nf4"
		if t := quantType.FindSubmatch(card); t != nil {
			kind = string(t[1])
		}
		return of(kind), said, true
	}
	return of("nf4"), said, qlora.Match(card)
}
