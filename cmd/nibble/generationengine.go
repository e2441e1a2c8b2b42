package main

import (
	"fmt"
	"sort"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/train/engine"
	trainmodel "github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/stream"
)

// What the program takes beside what is counted: code, the runtime and headers; and for
// each piece of the vocabulary, with the tables it is looked up by. Measured on
// linux/amd64.
const (
	generateProgram = 32 << 20
	vocabPiece      = 256
)

// A generateNeed is what generating text takes, as a function of the length of the sequences.
type generateNeed struct {
	arch     *arch.Model
	sizes    *stream.Sizes
	adapted  trainmodel.Adapted
	adapters int64
}

// beside is what it takes beside the weights.
func (n *generateNeed) beside(positions int) int64 {
	cache, rest := engine.GenerateBytes(n.arch, n.adapted, positions)
	return generateProgram + vocabPiece*n.arch.VocabSize + n.adapters + n.sizes.Rest + cache + rest
}

// least is what it takes with as little of the weights in memory as can be.
func (n *generateNeed) least(positions int) int64 {
	return n.beside(positions) + min(2, n.arch.NumHiddenLayers)*n.sizes.Slot + n.sizes.HeadMemory(false, trainmodel.HeadRows(n.arch))
}

// longest returns the most positions up to most that a budget is enough for.
func (n *generateNeed) longest(budget int64, most int) int {
	return sort.Search(most, func(p int) bool { return n.least(p+1) > budget })
}

// choices returns what of the weights is in memory: all, or what fits beside the rest,
// the head first, of which all is used for each token.
func (n *generateNeed) choices(budget int64, positions int) engine.Choices {
	c := engine.Choices{Slots: int(n.arch.NumHiddenLayers), ResidentHead: true}
	if budget == 0 {
		return c
	}
	left := budget - n.beside(positions)
	if head := n.sizes.HeadMemory(true, 0); head+2*n.sizes.Slot <= left {
		left -= head
	} else {
		c.ResidentHead = false
		left -= n.sizes.HeadMemory(false, trainmodel.HeadRows(n.arch))
	}
	c.Slots = max(2, min(c.Slots, int(left/max(1, n.sizes.Slot))))
	// Blocks are used in a circle: all that are pinned are there the next time.
	c.Pinned = max(0, c.Slots-2)
	return c
}

// An adapterFlag is an adapter with the name that it is switched to by.
type adapterFlag struct{ name, path string }

// parseAdapter reads [NAME=]DIR.
func parseAdapter(text string) adapterFlag {
	if name, path, named := strings.Cut(text, "="); named && name != "" && !strings.ContainsAny(name, `/\ `) {
		return adapterFlag{name, path}
	}
	return adapterFlag{nameOf(text), text}
}

// nameOf returns the last part of a path, without what says that it is a file.
func nameOf(path string) string {
	path = strings.TrimRight(path, `/\`)
	path = path[strings.LastIndexAny(path, `/\`)+1:]
	for _, ext := range []string{".gguf", ".safetensors"} {
		path = strings.TrimSuffix(path, ext)
	}
	return path
}

// noAdapter is the name of the model without one.
const noAdapter = "none"

// attachAll opens adapters, and returns them by name.
func (m *model) attachAll(list []adapterFlag) (map[string]trainmodel.Trainable, error) {
	all := map[string]trainmodel.Trainable{noAdapter: {}}
	for _, a := range list {
		if _, twice := all[a.name]; twice {
			return nil, badUsage(hint.Add(fmt.Errorf("--adapter: there are two adapters by the name of %q", a.name), "write --adapter NAME=DIR"))
		}
		t, err := attach(m.view, m.arch, a.path)
		if err != nil {
			return nil, err
		}
		all[a.name] = t
	}
	return all, nil
}

// trainableBytes is the memory of what a model has beside its base.
func trainableBytes(t trainmodel.Trainable) (n int64) {
	for _, p := range t.Params {
		n += 4 * int64(len(p.Data))
	}
	for _, a := range t.Adapters {
		for _, p := range a.Params() {
			n += 4 * int64(len(p.Data))
		}
	}
	return n
}

// generating returns an engine that the adapters can be used with, for sequences of up
// to so many tokens. asked is the flag that says how many, "" if they are the most there
// may be: then there are as many as fit.
func (m *model) generating(adapters map[string]trainmodel.Trainable, positions int, asked string, budget int64) (*engine.Engine, int, error) {
	sizes, err := stream.NewSizes(m.view, m.arch, nil)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", m.Path, err)
	}
	n := &generateNeed{arch: m.arch, sizes: sizes}
	most := 0
	for _, t := range adapters {
		n.adapters += trainableBytes(t)
		if len(t.Adapters) >= most {
			n.adapted, most = t.Adapted(), len(t.Adapters)
		}
	}
	if budget > 0 && n.least(positions) > budget {
		fits := n.longest(budget, positions)
		cache, _ := engine.GenerateBytes(m.arch, n.adapted, positions)
		switch {
		case fits < min(positions, 16):
			return nil, 0, hint.Add(fmt.Errorf("%s: it takes %s to generate text with %d tokens, over the budget of %s", m.Path, memory.FormatSize(n.least(positions)), positions, memory.FormatSize(budget)),
				"give --memory %s or more", memory.AtLeast(n.least(min(positions, 256))))
		case asked != "":
			return nil, 0, hint.Add(fmt.Errorf("%s: %d tokens take %s, %s of it for their keys and values, over the budget of %s", m.Path, positions, memory.FormatSize(n.least(positions)), memory.FormatSize(cache), memory.FormatSize(budget)),
				"%d tokens would fit: lower %s, or give --memory %s or more", fits, asked, memory.AtLeast(n.least(positions)))
		}
		positions = fits
	}
	e, err := engine.New(m.view, codecs, m.arch, trainmodel.Trainable{}, engine.Options{Choices: n.choices(budget, positions), Positions: positions})
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", m.Path, err)
	}
	return e, positions, nil
}
