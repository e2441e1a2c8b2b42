package train

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// Methods is the part of a Config that says which adapters there are and what is trained
// beside them. The fields mean what those of PEFT's LoraConfig do.
type Methods struct {
	Rank      int     `json:"rank"`
	Alpha     float64 `json:"alpha"`
	Dropout   float64 `json:"dropout"`
	UseRSLoRA bool    `json:"use_rslora"`

	// RankPattern and AlphaPattern give modules ranks and alphas of their own.
	RankPattern  peft.Pattern `json:"rank_pattern"`
	AlphaPattern peft.Pattern `json:"alpha_pattern"`

	// TargetModules are names of linear layers, or of the token embeddings, or
	// "all-linear"; or one regular expression that whole names match. ExcludeModules
	// are not among them whatever that says.
	TargetModules  []string `json:"target_modules"`
	ExcludeModules []string `json:"exclude_modules,omitempty"`

	// LayersToTransform are the numbers of the layers that get adapters, NumLayers that
	// of the last so many. Nil and a negative number are all.
	LayersToTransform []int64 `json:"layers_to_transform,omitempty"`
	NumLayers         int     `json:"num_layers"`

	// ModulesToSave are the ends of names of modules that are trained themselves, and
	// Bias says which biases are.
	ModulesToSave []string `json:"modules_to_save,omitempty"`
	Bias          string   `json:"bias"`

	// InitLoRAWeights says how adapters begin.
	InitLoRAWeights string `json:"init_lora_weights"`

	// LoRADType is the type that adapters have: what they are rounded to after each
	// step.
	LoRADType string `json:"lora_dtype"`
}

func defaultMethods() Methods {
	return Methods{
		Rank: 16, Alpha: 32, TargetModules: []string{allLinear}, NumLayers: -1,
		Bias: "none", InitLoRAWeights: "default", LoRADType: "f32",
	}
}

// allLinear stands for every linear layer of the blocks.
const allLinear = "all-linear"

// Biases lists what Bias may be.
func Biases() []string { return []string{"none", "all", "lora_only"} }

// Inits lists what InitLoRAWeights may be; pissa_niter_N is there for any N.
func Inits() []string { return []string{"default", "gaussian", "pissa", "pissa_niter_N"} }

// loraDTypes are the types of adapters by their names.
var loraDTypes = map[string]tensor.DType{"f32": tensor.F32, "bf16": tensor.BF16}

var pissa = regexp.MustCompile(`^pissa(?:_niter_([1-9][0-9]{0,2}))?$`)

// PiSSA reports whether adapters begin as the principal singular vectors of the weights,
// which they are taken out of (arXiv 2404.02948), and how many rounds of subspace
// iteration find them, 0 being as many as it takes.
func (m *Methods) PiSSA() (rounds int, ok bool) {
	found := pissa.FindStringSubmatch(m.InitLoRAWeights)
	if found == nil {
		return 0, false
	}
	if found[1] != "" {
		rounds, _ = strconv.Atoi(found[1]) // three digits at most
	}
	return rounds, true
}

func (c *Config) validateMethods() error {
	m := &c.Methods
	switch _, principal := m.PiSSA(); {
	case !(m.Dropout >= 0 && m.Dropout < 1):
		return fmt.Errorf("--dropout is %v, want at least 0 and less than 1", m.Dropout)
	case !slices.Contains(Biases(), m.Bias):
		return fmt.Errorf("--bias is %q, want one of: %s", m.Bias, strings.Join(Biases(), ", "))
	case !principal && !slices.Contains(Inits()[:2], m.InitLoRAWeights):
		return fmt.Errorf("--init-lora-weights is %q, want one of: %s", m.InitLoRAWeights, strings.Join(Inits(), ", "))
	case loraDTypes[m.LoRADType] == tensor.Invalid:
		return fmt.Errorf("--lora-dtype is %q, want f32 or bf16", m.LoRADType)
	case m.NumLayers == 0:
		return hint.Add(fmt.Errorf("--num-layers is 0: there is nothing to train"), "-1 is all layers")
	case m.NumLayers > 0 && len(m.LayersToTransform) > 0:
		return fmt.Errorf("--num-layers and --layers-to-transform both say which layers")
	case m.limited() && modules(m.TargetModules).Regex != "":
		return hint.Add(fmt.Errorf("--target-modules is a regular expression, beside which PEFT knows no layers to transform"), "let the expression name the layers")
	}
	if !c.Full() {
		_, err := c.peft().Patterns()
		return err
	}
	for _, v := range []struct {
		name  string
		given bool
	}{
		{"modules-to-save", len(m.ModulesToSave) > 0}, {"exclude-modules", len(m.ExcludeModules) > 0}, {"num-layers", m.NumLayers > 0},
		{"layers-to-transform", len(m.LayersToTransform) > 0}, {"rank-pattern", len(m.RankPattern) > 0}, {"alpha-pattern", len(m.AlphaPattern) > 0},
		{"bias", m.Bias != "none"}, {"init-lora-weights", m.InitLoRAWeights != "default"}, {"lora-dtype", m.LoRADType != "f32"}, {"use-rslora", m.UseRSLoRA},
	} {
		if v.given {
			return hint.Add(fmt.Errorf("--%s is of adapters, and full fine-tuning has none", v.name), "leave it out, or give --fine-tune-type lora")
		}
	}
	return nil
}

// limited reports whether some layers have no adapters.
func (m *Methods) limited() bool { return m.NumLayers > 0 || len(m.LayersToTransform) > 0 }

// compared returns what a run that is resumed must have as it was.
func (m *Methods) compared(was *Methods) []Difference {
	text := func(v any) string { return fmt.Sprint(v) }
	return []Difference{
		{"rank", m.Rank, was.Rank},
		{"alpha", m.Alpha, was.Alpha},
		{"dropout", m.Dropout, was.Dropout},
		{"use-rslora", m.UseRSLoRA, was.UseRSLoRA},
		{"rank-pattern", text(m.RankPattern), text(was.RankPattern)},
		{"alpha-pattern", text(m.AlphaPattern), text(was.AlphaPattern)},
		{"target-modules", text(m.TargetModules), text(was.TargetModules)},
		{"exclude-modules", text(m.ExcludeModules), text(was.ExcludeModules)},
		{"layers-to-transform", text(m.LayersToTransform), text(was.LayersToTransform)},
		{"num-layers", m.NumLayers, was.NumLayers},
		{"modules-to-save", text(m.ModulesToSave), text(was.ModulesToSave)},
		{"bias", m.Bias, was.Bias},
		{"init-lora-weights", m.InitLoRAWeights, was.InitLoRAWeights},
		{"lora-dtype", m.LoRADType, was.LoRADType},
	}
}

// modules reads names, or one regular expression: what begins with "re:" is one, and a
// single entry that could be nothing else, as PEFT takes a single string.
func modules(list []string) peft.Modules {
	if len(list) == 1 {
		if re, ok := strings.CutPrefix(list[0], "re:"); ok {
			return peft.Modules{Regex: re}
		}
		if strings.ContainsAny(list[0], `\^$*+?()[]{}|`) {
			return peft.Modules{Regex: list[0]}
		}
	}
	return peft.Modules{Names: list}
}

// peft returns the settings that are PEFT's too, but for which modules are meant.
func (c *Config) peft() *peft.Config {
	p := peft.NewConfig()
	p.TaskType = "CAUSAL_LM"
	p.R, p.LoraAlpha, p.LoraDropout, p.UseRSLoRA = int64(c.Rank), c.Alpha, c.Dropout, c.UseRSLoRA
	p.RankPattern, p.AlphaPattern = c.RankPattern, c.AlphaPattern
	p.UseDoRA, p.Bias, p.ModulesToSave = c.FineTuneType == dora, c.Bias, c.ModulesToSave
	if c.InitLoRAWeights != "default" {
		p.InitLoraWeights = peft.Init(c.InitLoRAWeights)
	}
	return p
}

// PEFT returns the adapter_config.json of a run's adapters on the model: the modules
// that have one are there by name, however they were chosen.
func (c *Config) PEFT(a *arch.Model) (*peft.Config, error) {
	chosen, err := c.choose(a)
	if err != nil {
		return nil, err
	}
	p := c.peft()
	var names []string
	for _, x := range chosen.adapted {
		names = append(names, x.Module())
	}
	p.TargetModules = peft.TargetsOf(names)
	p.FanInFanOut = a.FanInFanOut()
	if p.EnsureWeightTying = chosen.tied; chosen.tied {
		p.StoreTwice(a.NameOf(arch.Embedding), a.NameOf(arch.Head))
	}
	return p, nil
}

// chosen is what of a model is trained by the side of its base.
type chosen struct {
	adapted []arch.Tensor // weights that get an adapter
	trained []arch.Tensor // trained themselves
	tied    bool          // so is the embedding that is the head too
	of      func(module string) (rank int, scale float64)
}

// choose finds what is trained, by PEFT's rules.
func (c *Config) choose(a *arch.Model) (*chosen, error) {
	p := c.peft()
	p.TargetModules, p.ExcludeModules = modules(c.TargetModules), modules(c.ExcludeModules)
	p.LayersToTransform = c.LayersToTransform
	if n := int64(c.NumLayers); n > 0 {
		for l := max(0, a.NumHiddenLayers-n); l < a.NumHiddenLayers; l++ {
			p.LayersToTransform = append(p.LayersToTransform, l)
		}
	}
	for _, l := range p.LayersToTransform {
		if l < 0 || l >= a.NumHiddenLayers {
			return nil, fmt.Errorf("--layers-to-transform %d: the model has layers 0 to %d", l, a.NumHiddenLayers-1)
		}
	}
	if at := slices.IndexFunc(p.TargetModules.Names, isAllLinear); at >= 0 {
		p.TargetModules.Names = slices.Concat(p.TargetModules.Names[:at:at], a.LinearModules(), p.TargetModules.Names[at+1:])
	}
	targeted, err := p.Targeted()
	if err != nil {
		return nil, err
	}
	if targeted == nil {
		return nil, hint.Add(fmt.Errorf("--target-modules is empty"), "all-linear takes all linear layers of the blocks")
	}
	of, err := p.Scales()
	if err != nil {
		return nil, err
	}
	ranks, err := p.Patterns()
	if err != nil {
		return nil, err
	}
	out := &chosen{of: func(module string) (int, float64) {
		rank := p.R
		if ranks != nil {
			rank, _ = ranks(module)
		}
		scale, _ := of(module, int(rank)) // it is the rank that Scales expects
		return int(rank), scale
	}}
	has := make(map[string]bool)
	for _, x := range a.Tensors() {
		switch module := x.Module(); {
		case c.saves(module):
			out.trained = append(out.trained, x)
			out.tied = out.tied || x.Role == arch.Embedding && a.TieWordEmbeddings
		case x.Part == "weight" && targeted(module):
			if !slices.Contains(adaptable, x.Role) && !x.Linear {
				return nil, notAdapted(x)
			}
			out.adapted = append(out.adapted, x)
			has[module] = true
		}
	}
	if c.Bias != "none" {
		for _, x := range a.Tensors() {
			if x.Part == "bias" && !c.saves(x.Module()) && (c.Bias == "all" || has[x.Module()]) {
				out.trained = append(out.trained, x)
			}
		}
	}
	return out, c.checkChoice(a, p, out)
}

// adaptable are the roles of weights that get an adapter only where they are named.
var adaptable = []arch.Role{arch.Embedding, arch.Router, arch.SharedRouter}

func isAllLinear(name string) bool { return strings.EqualFold(name, allLinear) }

// meant is PEFT's rule for names: all of it, or its end after a dot.
func meant(module, name string) bool { return module == name || strings.HasSuffix(module, "."+name) }

// saves reports whether a module, or one that it is in, is trained itself: by PEFT's rule,
// one whose name ends so.
func (c *Config) saves(module string) bool {
	for {
		if slices.ContainsFunc(c.ModulesToSave, func(s string) bool { return strings.HasSuffix(module, s) }) {
			return true
		}
		at := strings.LastIndexByte(module, '.')
		if at < 0 {
			return false
		}
		module = module[:at]
	}
}

func notAdapted(x arch.Tensor) error {
	err := fmt.Errorf("--target-modules %s: %w: an adapter of what is no linear layer of a block, nor the token embeddings", x.Module(), tensor.ErrUnsupported)
	return hint.Add(err, "--modules-to-save %s trains it whole", x.Module()[strings.LastIndexByte(x.Module(), '.')+1:])
}

// checkChoice returns an error if a setting means nothing of the model, or what cannot be
// done.
func (c *Config) checkChoice(a *arch.Model, p *peft.Config, got *chosen) error {
	adapted := func(is func(module string) bool) bool {
		return slices.ContainsFunc(got.adapted, func(x arch.Tensor) bool { return is(x.Module()) })
	}
	for _, n := range modules(c.TargetModules).Names {
		if !isAllLinear(n) && !adapted(func(module string) bool { return meant(module, n) }) {
			return c.noTarget(a, n)
		}
	}
	if len(got.adapted) == 0 {
		return c.noTarget(a, strings.Join(c.TargetModules, ","))
	}
	for _, s := range c.ModulesToSave {
		if a.TieWordEmbeddings && strings.HasSuffix(a.NameOf(arch.Head), s+".weight") {
			embedding := a.NameOf(arch.Embedding)
			return hint.Add(fmt.Errorf("--modules-to-save %s: %w: the head of this model is its embeddings", s, tensor.ErrUnsupported),
				"%s trains the two as the one that they are", strings.TrimSuffix(embedding[strings.LastIndexByte(strings.TrimSuffix(embedding, ".weight"), '.')+1:], ".weight"))
		}
		one := Config{Methods: Methods{ModulesToSave: []string{s}}}
		if !slices.ContainsFunc(got.trained, func(x arch.Tensor) bool { return one.saves(x.Module()) }) {
			return fmt.Errorf("--modules-to-save %q: the model has no module whose name ends so", s)
		}
	}
	for _, v := range []struct {
		flag    string
		entries peft.Pattern
	}{{"rank-pattern", c.RankPattern}, {"alpha-pattern", c.AlphaPattern}} {
		for _, e := range v.entries {
			one := peft.NewConfig()
			one.R, one.RankPattern = 1, peft.Pattern{{Key: e.Key, Value: 2}}
			of, err := one.Patterns()
			if err != nil {
				return err
			}
			if !adapted(func(module string) bool { rank, _ := of(module); return rank == 2 }) {
				return fmt.Errorf("--%s %q: no module that gets an adapter has such a name", v.flag, e.Key)
			}
		}
	}
	for _, x := range got.adapted {
		rank, scale := got.of(x.Module())
		switch _, principal := c.PiSSA(); {
		case x.Role == arch.Embedding && p.UseDoRA:
			return hint.Add(fmt.Errorf("--target-modules %s: %w: DoRA of embeddings, whose columns would be measured anew at every step", x.Module(), tensor.ErrUnsupported),
				"give --fine-tune-type lora, or leave the embeddings out")
		case x.Role == arch.Embedding && principal:
			return hint.Add(fmt.Errorf("--target-modules %s: %w: PiSSA of embeddings, which PEFT has not either", x.Module(), tensor.ErrUnsupported), "leave the embeddings out")
		case principal && int64(rank) > slices.Min(x.Dims):
			return fmt.Errorf("--rank %d: %s has %d singular values", rank, x.Module(), slices.Min(x.Dims))
		case scale == 0 || math.IsInf(scale, 0):
			return fmt.Errorf("--alpha %v: the adapters would change nothing", c.Alpha)
		}
	}
	return nil
}

func (c *Config) noTarget(a *arch.Model, name string) error {
	err := fmt.Errorf("--target-modules %q: the model has no linear layer of that name", name)
	if len(c.ExcludeModules)+len(c.ModulesToSave) > 0 || c.limited() {
		err = fmt.Errorf("--target-modules %q: of the linear layers that may get an adapter none has that name", name)
	}
	return hint.Add(err, "the %s family has %s; all-linear takes them all", a.Name, strings.Join(a.LinearModules(), ", "))
}
