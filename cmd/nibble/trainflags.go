package main

import (
	"encoding/csv"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/train"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/optim"
)

// trainOptions are the flags of train.
type trainOptions struct {
	model, out, resume, config       string
	preset, adapter, adapterFormat   string
	scratch                          string
	cache                            sizeFlag
	report                           int
	dryRun, printConfig, printSchema bool
	dataFlags
	prompts   string // file of sample prompts
	exports   []string
	exportDir string
	line      []string // the command, for the card
	screens   screenOptions
	train.Config

	// setBy says what set each flag that was set: the command line, a file or a preset.
	setBy map[string]string

	// notes are what is worth knowing about the file of settings.
	notes []string
}

func (o *trainOptions) flags(f *pflag.FlagSet) {
	f.SortFlags = false // they stand as they belong together
	f.SetNormalizeFunc(spelled)
	c := &o.Config
	f.StringVar(&o.model, "model", "", "the base model")
	o.dataFlags.flags(f)
	f.StringVar(&o.out, "output-dir", "", "where the adapter, checkpoints and logs go")
	f.StringVar(&o.config, "config", "", "YAML file with any of these flags")
	f.StringVar(&o.preset, "preset", "", "settings of "+strings.Join(presetNames(), ", ")+"; what is given beside it wins")
	f.StringVar(&o.resume, "resume", "", "go on from this checkpoint, or from the last one of this output directory")
	f.BoolVar(&o.printConfig, "print-config", false, "print all settings as YAML that --config reads, and stop")
	f.BoolVar(&o.printSchema, "print-schema", false, "print the JSON schema of such files, for editors, and stop")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the settings, the memory plan and how long a step will take, and stop")
	o.cache = math.MaxInt64
	f.Var(&o.cache, "cache", "keep blocks of the base in what is left of --memory, up to this size; 0 is none (default: all that is left)")
	f.Lookup("cache").DefValue = ""
	f.StringVar(&o.scratch, "scratch-dir", "", "directory for what memory has no room for (default: --output-dir)")

	f.StringVar(&c.FineTuneType, "fine-tune-type", c.FineTuneType, strings.Join(train.FineTuneTypes(), ", "))
	f.IntVar(&c.Iters, "iters", c.Iters, "optimizer steps (default: as --epochs says)")
	f.Float64Var(&c.Epochs, "epochs", c.Epochs, "times through the data")
	f.IntVar(&c.BatchSize, "batch-size", c.BatchSize, "examples in a micro-batch")
	f.IntVar(&c.GradAccumulationSteps, "grad-accumulation-steps", c.GradAccumulationSteps, "micro-batches in a step; the base is read once for all of them")
	f.IntVar(&c.MaxSeqLength, "max-seq-length", c.MaxSeqLength, "tokens of an example; --overlong says what becomes of longer ones")

	f.StringVar(&c.Optimizer, "optimizer", c.Optimizer, strings.Join(optim.Names(), ", ")+", or a name that transformers has for one of them")
	f.Float64Var(&c.LearningRate, "learning-rate", c.LearningRate, "highest learning rate")
	f.StringVar(&c.LRSchedulerType, "lr-scheduler-type", c.LRSchedulerType, strings.Join(optim.ScheduleTypes(), ", "))
	f.IntVar(&c.WarmupSteps, "warmup-steps", c.WarmupSteps, "steps of linear warm-up; -1 is --warmup-ratio of all")
	f.Float64Var(&c.WarmupRatio, "warmup-ratio", c.WarmupRatio, "share of the steps that are warm-up")
	f.Float64Var(&c.WeightDecay, "weight-decay", c.WeightDecay, "weight decay of matrices, decoupled but with sgd")
	f.Float64Var(&c.AdamBeta1, "adam-beta1", c.AdamBeta1, "first beta of adamw, adamw_8bit and lion")
	f.Float64Var(&c.AdamBeta2, "adam-beta2", c.AdamBeta2, "second beta of these; Lion's paper has 0.99")
	f.Float64Var(&c.AdamEpsilon, "adam-epsilon", c.AdamEpsilon, "epsilon of adamw and adamw_8bit")
	f.Float64Var(&c.Momentum, "momentum", c.Momentum, "momentum of sgd")
	f.Float64Var(&c.LoraPlusLRRatio, "loraplus-lr-ratio", c.LoraPlusLRRatio, "learning rate of each B over that of its A (LoRA+); 0 is the same")
	f.BoolVar(&c.BF16StochasticRound, "bf16-stochastic-round", c.BF16StochasticRound, "keep what is trained in bf16, rounded at random after each step")
	f.Float64Var(&c.MaxGradNorm, "max-grad-norm", c.MaxGradNorm, "clip the gradient to this norm; 0 is never")

	o.methodFlags(f)
	o.watchFlags(f)
	o.screenFlags(f)
	o.exportFlags(f)
	o.switches(f)
	enumerate(f, "fine-tune-type", train.FineTuneTypes())
	enumerate(f, "lr-scheduler-type", optim.ScheduleTypes())
	enumerate(f, "bias", train.Biases())
	enumerate(f, "init-lora-weights", train.Inits())
	enumerate(f, "lora-dtype", []string{"f32", "bf16"})
	enumerate(f, "preset", presetNames())
	enumerate(f, "overlong", overlongs)
	enumerate(f, "data-format", data.Formats())

	f.IntVar(&c.SaveEvery, "save-every", c.SaveEvery, "steps between checkpoints; 0 is only at the end")
	f.IntVar(&c.SaveTotalLimit, "save-total-limit", c.SaveTotalLimit, "checkpoints to keep, the last ones; 0 is all")
	f.IntVar(&c.StepsPerEval, "steps-per-eval", c.StepsPerEval, "steps between evaluations; 0 is only before and after")
	f.IntVar(&o.report, "steps-per-report", 10, "steps between lines of progress")
	f.IntVar(&c.ValBatches, "val-batches", c.ValBatches, "batches of an evaluation; -1 is all")
	f.Uint64Var(&c.Seed, "seed", c.Seed, "makes the run repeatable")
}

// methodFlags adds the flags of adapters.
func (o *trainOptions) methodFlags(f *pflag.FlagSet) {
	m := &o.Methods
	f.IntVar(&m.Rank, "rank", m.Rank, "rank of the adapters")
	f.Float64Var(&m.Alpha, "alpha", m.Alpha, "adapters are scaled by alpha/rank")
	f.Float64Var(&m.Dropout, "dropout", m.Dropout, "dropout on the adapters' inputs")
	f.BoolVar(&m.UseRSLoRA, "use-rslora", m.UseRSLoRA, "scale by alpha/sqrt(rank)")
	f.Var((*patternFlag)(&m.RankPattern), "rank-pattern", "ranks of modules, NAME=RANK,...: by the end of the name, or a regular expression")
	f.Var((*patternFlag)(&m.AlphaPattern), "alpha-pattern", "alphas of modules, NAME=ALPHA,...")
	f.Var(newModulesFlag(&m.TargetModules), "target-modules", "linear layers (or embed_tokens) that get an adapter: names, re:EXPRESSION for whole names, or all-linear")
	f.Var(newModulesFlag(&m.ExcludeModules), "exclude-modules", "layers that get none whatever --target-modules says")
	f.Int64SliceVar(&m.LayersToTransform, "layers-to-transform", m.LayersToTransform, "numbers of the layers that get adapters (default all)")
	f.Lookup("layers-to-transform").DefValue = ""
	f.IntVar(&m.NumLayers, "num-layers", m.NumLayers, "adapters in the last so many layers; -1 is all")
	f.StringSliceVar(&m.ModulesToSave, "modules-to-save", m.ModulesToSave, "modules whose names end so are trained whole beside the adapters: norm, embed_tokens, lm_head, ...")
	f.StringVar(&m.Bias, "bias", m.Bias, "biases that are trained: "+strings.Join(train.Biases(), ", "))
	f.StringVar(&m.InitLoRAWeights, "init-lora-weights", m.InitLoRAWeights, "how adapters begin: "+strings.Join(train.Inits(), ", "))
	f.StringVar(&m.LoRADType, "lora-dtype", m.LoRADType, "type that adapters are rounded to after each step: f32, bf16")
	f.StringVar(&o.adapter, "adapter", "", "go on from this adapter, of any format, with its rank, alpha and modules (one of nibble quantize --init-adapter loftq, say)")
	f.StringVar(&o.adapter, "resume-adapter-file", "", "")
	_ = f.MarkHidden("resume-adapter-file") // mlx-lm's name for --adapter
	f.StringVar(&o.adapterFormat, "adapter-format", "auto", "peft, gguf or both; auto is both for a GGUF base, if GGUF can hold the adapter")
}

// maskFlag is --mask-prompt: a boolean that knows whether it was given.
type maskFlag data.Mask

func (m *maskFlag) String() string {
	return map[data.Mask]string{data.MaskPrompt: "true", data.NoMask: "false"}[data.Mask(*m)]
}

func (m *maskFlag) Set(s string) error {
	on, err := strconv.ParseBool(s)
	*m = maskFlag(data.NoMask)
	if on {
		*m = maskFlag(data.MaskPrompt)
	}
	return err
}

func (m *maskFlag) Type() string { return "bool" }

// modulesFlag is a list of names, or one regular expression, in which a comma is no end.
type modulesFlag struct {
	list  *[]string
	given bool
}

func newModulesFlag(list *[]string) *modulesFlag { return &modulesFlag{list: list} }

func (m *modulesFlag) String() string {
	if m.list == nil {
		return ""
	}
	return strings.Join(*m.list, ",")
}

func (m *modulesFlag) Set(s string) error {
	names := []string{s}
	if !strings.HasPrefix(s, "re:") && s != "" {
		var err error
		if names, err = csv.NewReader(strings.NewReader(s)).Read(); err != nil {
			return err
		}
	}
	if m.given {
		names = slices.Concat(*m.list, names)
	}
	if len(names) > 1 && slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "re:") }) {
		return fmt.Errorf("a regular expression stands alone, and %d are given", len(names))
	}
	*m.list, m.given = names, true
	return nil
}

func (m *modulesFlag) Type() string { return "names" }

// patternFlag is what modules have of their own, NAME=NUMBER,... A comma in a name, which
// may be an expression, is part of it.
type patternFlag peft.Pattern

func (p *patternFlag) String() string {
	var out []string
	for _, e := range *p {
		out = append(out, e.Key+"="+strconv.FormatFloat(e.Value, 'g', -1, 64))
	}
	return strings.Join(out, ",")
}

func (p *patternFlag) Set(s string) error {
	name := ""
	for _, part := range strings.Split(s, ",") {
		at := strings.LastIndexByte(part, '=')
		if at < 0 {
			name += part + ","
			continue
		}
		v, err := strconv.ParseFloat(part[at+1:], 64)
		if err != nil || v-v != 0 {
			return hint.Add(fmt.Errorf("%q: %q is not a number", part, part[at+1:]), "write NAME=8")
		}
		*p = append(*p, peft.PatternEntry{Key: name + part[:at], Value: v})
		name = ""
	}
	if name != "" {
		return hint.Add(fmt.Errorf("%q says no number", strings.TrimSuffix(name, ",")), "write NAME=8")
	}
	return nil
}

func (p *patternFlag) Type() string { return "pattern" }

// A preset is what a source trained with.
type preset struct {
	name  string
	flags [][2]string
}

// presets are the settings of others. What a source does not say is not in them.
var presets = []preset{
	// arXiv 2305.14314, appendix B.2, for 7B and 13B; with 33B and 65B it takes 1e-4 and
	// a dropout of 0.05. transformers' constant schedule has no warm-up.
	{"qlora-paper", [][2]string{
		{"rank", "64"}, {"alpha", "16"}, {"dropout", "0.1"}, {"target-modules", "all-linear"},
		{"optimizer", "adamw"}, {"learning-rate", "0.0002"}, {"lr-scheduler-type", "constant"}, {"warmup-steps", "0"},
		{"weight-decay", "0"}, {"max-grad-norm", "0.3"}, {"batch-size", "1"}, {"grad-accumulation-steps", "16"},
	}},
	// The defaults of qlora.py in artidoro/qlora.
	{"qlora-r64", [][2]string{
		{"rank", "64"}, {"alpha", "16"}, {"dropout", "0"}, {"target-modules", "all-linear"},
		{"optimizer", "adamw"}, {"learning-rate", "0.0002"}, {"lr-scheduler-type", "constant"}, {"warmup-steps", "0"},
		{"weight-decay", "0"}, {"max-grad-norm", "0.3"}, {"batch-size", "1"}, {"grad-accumulation-steps", "16"},
		{"max-seq-length", "1280"},
	}},
	// TRL's ModelConfig, with the learning rate of its LoRA example.
	{"lora-r16", [][2]string{
		{"rank", "16"}, {"alpha", "32"}, {"dropout", "0.05"}, {"target-modules", "all-linear"},
		{"optimizer", "adamw"}, {"learning-rate", "0.0002"}, {"lr-scheduler-type", "linear"}, {"warmup-steps", "0"},
		{"weight-decay", "0"}, {"max-grad-norm", "1"}, {"batch-size", "8"}, {"grad-accumulation-steps", "1"}, {"max-seq-length", "1024"},
	}},
	// Sebastian Raschka, "Practical Tips for Finetuning LLMs Using LoRA" (2023), section 8,
	// with Lit-GPT's finetune/lora.py.
	{"raschka-r256", [][2]string{
		{"rank", "256"}, {"alpha", "512"}, {"dropout", "0.05"}, {"target-modules", "all-linear"},
		{"optimizer", "adamw"}, {"learning-rate", "0.0003"}, {"lr-scheduler-type", "constant"}, {"warmup-steps", "100"},
		{"weight-decay", "0.01"}, {"max-grad-norm", "0"}, {"batch-size", "1"}, {"grad-accumulation-steps", "128"}, {"max-seq-length", "1304"},
	}},
}

func presetNames() []string {
	var out []string
	for _, p := range presets {
		out = append(out, p.name)
	}
	return out
}

// settle sets the flags that the command line does not: first those of the file, then of
// the preset, which the file may name.
func (o *trainOptions) settle(f *pflag.FlagSet) error {
	o.setBy = make(map[string]string)
	f.Visit(func(x *pflag.Flag) { o.setBy[x.Name] = "the command line" })
	if o.config != "" {
		set, notes, err := applyConfig(o.config, f)
		if err != nil {
			return err
		}
		o.notes = notes
		for _, name := range set {
			o.setBy[name] = o.config
		}
	}
	if o.preset == "" {
		return nil
	}
	at := slices.IndexFunc(presets, func(p preset) bool { return p.name == o.preset })
	if at < 0 {
		return badUsage(fmt.Errorf("--preset is %q, want one of: %s", o.preset, strings.Join(presetNames(), ", ")))
	}
	for _, x := range presets[at].flags {
		name, value := x[0], x[1]
		if o.setBy[name] != "" {
			continue
		}
		if err := f.Lookup(name).Value.Set(value); err != nil {
			return fmt.Errorf("preset %s: --%s: %w", o.preset, name, err)
		}
		o.setBy[name] = "--preset " + o.preset
	}
	return nil
}
