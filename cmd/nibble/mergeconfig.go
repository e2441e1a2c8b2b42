package main

import (
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// mergeConfig is what the arithmetic of an adapter depends on.
func mergeConfig(c *peft.Config) (merge.Config, error) {
	cfg := merge.Config{
		Rank: int(c.R), Alpha: c.LoraAlpha, UseRSLoRA: c.UseRSLoRA,
		FanInFanOut: c.FanInFanOut, DoRA: c.UseDoRA, LoRABias: c.LoRABias,
		Saved: c.ModulesToSave, Bias: c.Bias,
		Parameters: c.TargetParameters, TiedAdapter: c.EnsureWeightTying,
		Targets: c.TargetModules.Names,
	}
	for _, t := range c.TrainableTokens {
		cfg.Tokens = append(cfg.Tokens, merge.Tokens(t))
	}
	for _, r := range c.LayerReplication {
		cfg.Replication = append(cfg.Replication, r)
	}
	if swaps, known := c.SwapsExperts(); known {
		cfg.SwappedExperts = &swaps
	}
	var err error
	if cfg.Targeted, err = c.Targeted(); err != nil {
		return cfg, err
	}
	of, err := c.Patterns()
	if of != nil {
		cfg.Pattern = func(name string) (int, float64) {
			rank, alpha := of(name)
			return int(rank), alpha
		}
	}
	return cfg, err
}

// describe says of the base what an adapter's arithmetic depends on.
func (m *model) describe(cfg *merge.Config) {
	view, a := m.view, m.arch
	transposed := make(map[string]bool)
	for _, t := range append(a.Tensors(), a.Extras()...) {
		transposed[t.Name] = t.Transposed
	}
	cfg.Transposed = func(name string) bool { return transposed[name] }
	cfg.Held = func(info tensor.Info) tensor.DType { return m.plainType(info, tensor.Invalid) }
	cfg.Embedding, cfg.Head = a.NameOf(arch.Embedding), a.NameOf(arch.Head)
	if cfg.Embedding == "" || !a.TieWordEmbeddings && !tensor.Has(view, cfg.Head) {
		cfg.Embedding, cfg.Head = "", ""
	}
	cfg.Stacked = func(parameter string) [][]string { return stackedExperts(a, parameter) }
}

// stackOf takes the name of a stack of experts apart, as transformers 5 has them.
var stackOf = regexp.MustCompile(`\.(\d+)\.\w+\.experts\.(\w+)$`)

// stackedExperts returns the tensors of a checkpoint that a stack of experts
// consists of, nil if it is none of the model's.
func stackedExperts(a *arch.Model, parameter string) [][]string {
	part := stackOf.FindStringSubmatch(parameter)
	if part == nil {
		return nil
	}
	layer, err := strconv.Atoi(part[1])
	if err != nil {
		return nil
	}
	roles := map[string][]arch.Role{
		"gate_up_proj": {arch.Gate, arch.Up}, "gate_proj": {arch.Gate}, "up_proj": {arch.Up}, "down_proj": {arch.Down},
	}[part[2]]
	var out [][]string
	for _, role := range roles {
		var names []string
		for e := range int(a.NumExperts) {
			t, ok := a.FindExpert(role, layer, e)
			if !ok {
				return nil
			}
			names = append(names, t.Name)
		}
		if len(names) == 0 {
			return nil
		}
		out = append(out, names)
	}
	return out
}

// tiedHead is why the tensor of a head is left out that the configuration says is
// the embedding.
const tiedHead = "the head is the embedding (tie_word_embeddings)"

// withoutTiedHead returns the model without a head that its configuration says is
// the embedding: transformers reads it and then takes the embedding.
func (m *model) withoutTiedHead() (*model, error) {
	head := m.arch.NameOf(arch.Head)
	if !m.arch.TieWordEmbeddings || !tensor.Has(m.view, head) {
		return m, nil
	}
	var entries []tensor.Entry
	for info := range m.view.All() {
		if info.Name != head {
			entries = append(entries, tensor.Forward(m.view, info, info.Name))
		}
	}
	src, err := tensor.NewTable(m.view.Meta(), entries)
	if err != nil {
		return nil, err
	}
	return m.over(src, nil, append(slices.Clone(m.view.Dropped), pipeline.Drop{Name: head, Reason: tiedHead})), nil
}

// over returns the model with other tensors in its view. origins says which of
// those of the view they are, where they have other names.
func (m *model) over(src tensor.Source, origins map[string]string, dropped []pipeline.Drop) *model {
	out := *m
	out.view = &convert.View{Source: src, Origins: make(map[string]convert.Origin), Dropped: dropped}
	maps.Copy(out.view.Origins, m.view.Origins)
	for name, from := range origins {
		out.view.Origins[name] = m.view.Origin(from)
	}
	return &out
}
