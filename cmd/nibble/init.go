package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/train"
	"github.com/seed18967229/nibble/train/data"
)

// suggestOptions are the flags of init.
type suggestOptions struct {
	model, out, outputDir string
	paths                 []string
}

func (a *app) initCommand() *cobra.Command {
	var o suggestOptions
	cmd := &cobra.Command{
		Use:   "init --model IN --data PATH",
		Short: "Write a configuration for training a model on a data set",
		Long: `Look at a model and at a data set, and write a configuration of nibble train that
suits them, with the reason beside each choice: how long examples may be, how many
make a step, how often to go through them, what is kept for validation. Whatever is
not in it is as nibble train has it (--print-config shows all).`,
		Example: `  nibble init --model stories260K --data shakespeare
  nibble train --config train.yaml --dry-run`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.init(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "the base model")
	f.StringArrayVar(&o.paths, "data", nil, "folder or file as train takes it; may be repeated")
	f.StringVar(&o.out, "out", "train.yaml", "the file to write")
	f.StringVar(&o.outputDir, "output-dir", "", "where the run is to go (default: the name of the model with -lora)")
	need(cmd, "model", "data")
	return cmd
}

// setting is a line of the configuration, and why it is so.
type setting struct {
	Name  string `json:"name"`
	Value any    `json:"value"`
	Why   string `json:"why"`
}

type initResult struct {
	Path     string    `json:"path"`
	Settings []setting `json:"settings"`
}

func (r *initResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s: %d settings; nibble train --config %s --dry-run says what will come of them\n", r.Path, len(r.Settings), r.Path)
}

func (a *app) init(ctx context.Context, o *suggestOptions) error {
	m, err := openModel(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	v, tok, err := m.tokenizer()
	if err != nil {
		return err
	}
	// The data is looked at with room for the longest rows that the model can take, and
	// with a template where it has none.
	t := &trainOptions{Config: train.DefaultConfig(), model: o.model, out: "."}
	t.paths, t.overlong, t.packing, t.special = o.paths, overlongs[data.Drop], noPacking, true
	t.MaxSeqLength = max(2, int(m.arch.MaxPositionEmbeddings))
	bare := v.ChatTemplate == ""
	if bare {
		t.template = usualTemplate
	}
	rows, err := t.rowFlags.options(m, tok, t.MaxSeqLength)
	if err != nil {
		return err
	}
	set, err := a.openData(t, rows)
	if err != nil {
		return err
	}
	defer set.Close()
	l, err := measure(ctx, set)
	if err != nil {
		return err
	}
	r := &initResult{Path: o.out, Settings: a.suggest(o, m, set, l, bare)}
	if err := fsx.WriteFile(o.out, []byte(r.yaml()), a.force); err != nil {
		return err
	}
	return a.print(r)
}

// usualTemplate is the template of chats for a model that was trained on none.
const usualTemplate = "chatml"

// lengths are those of the examples of a data set.
type lengths struct {
	p50, p95, longest int
	cut               int // examples that the context is too short for
	text              bool
	chat              bool
}

// mostMeasured is how many examples are looked at: evenly spread ones, if there are more.
const mostMeasured = 50_000

func measure(ctx context.Context, set *data.Set) (l lengths, err error) {
	l.text, l.longest, l.cut = set.Train.IsText(), set.Longest(), 0
	for _, f := range set.Files {
		l.chat = l.chat || f.IsChat()
		l.cut += f.Stats.Dropped
	}
	n := set.Train.Len()
	var list []int
	for i := 0; i < n; i += 1 + n/mostMeasured {
		if ctx.Err() != nil {
			return l, context.Cause(ctx)
		}
		x, err := set.Train.Example(i)
		if err != nil {
			return l, err
		}
		list = append(list, len(x.Tokens))
	}
	if len(list) == 0 {
		return l, errors.New("there are no examples")
	}
	slices.Sort(list)
	at := func(share float64) int { return list[min(len(list)-1, int(share*float64(len(list))))] }
	l.p50, l.p95 = at(0.5), at(0.95)
	return l, nil
}

// suggest decides the settings.
func (a *app) suggest(o *suggestOptions, m *model, set *data.Set, l lengths, bare bool) []setting {
	var s []setting
	add := func(name string, value any, why string, args ...any) {
		s = append(s, setting{name, value, fmt.Sprintf(why, args...)})
	}
	kind := "LoRA"
	if m.quantized() {
		kind = "QLoRA, since the base is quantized"
	}
	add("model", o.model, "%s, %d blocks, a context of %d tokens", m.arch.Family.Name, m.arch.NumHiddenLayers, m.arch.MaxPositionEmbeddings)
	var paths any = o.paths
	if len(o.paths) == 1 {
		paths = o.paths[0]
	}
	n := set.Train.Stats().Examples
	add("data", paths, "%s examples, %s tokens", thousands(int64(n)), thousands(set.Train.Stats().Tokens))
	dir := o.outputDir
	if dir == "" {
		dir = m.name() + "-lora"
	}
	add("output_dir", dir, "the adapter, checkpoints, trainer_log.jsonl, report.html")
	if l.chat && bare {
		add("chat_template", usualTemplate, "the model has none; chat with it by the same one")
	}
	add("fine_tune_type", "lora", "%s", kind)
	add("rank", 16, "of all linear layers")
	add("alpha", 32, "twice the rank")
	add("learning_rate", 2e-4, "usual for adapters, ten times that of full fine-tuning; halve it if the loss jumps")

	context := int(m.arch.MaxPositionEmbeddings)
	length := min(context, (l.longest+63)/64*64)
	switch {
	case l.text:
		length = min(context, 1024)
		add("max_seq_length", length, "windows of text")
	case l.longest > 2*l.p95 && l.p95 < context:
		length = min(context, (l.p95*5/4+63)/64*64)
		add("max_seq_length", length, "half of the examples have up to %d tokens, 95 %% up to %d, the longest %d: it would cost every step its memory", l.p50, l.p95, l.longest)
	default:
		add("max_seq_length", length, "half of the examples have up to %d tokens, 95 %% up to %d, the longest %d", l.p50, l.p95, l.longest)
	}
	if l.cut > 0 {
		add("overlong", overlongs[data.Drop], "%s examples are longer than the model's context: truncate keeps their beginning, error refuses them", thousands(int64(l.cut)))
	}
	typical := min(l.p50, length)
	if l.text {
		typical = length
	}
	if !l.text && length >= 4*max(1, l.p50) {
		typical = length
		add("packing", bfdPacking, "most examples are much shorter than the longest: several make one, and do not see each other")
	}
	batch := 1
	for batch < 8 && 2*batch*typical <= 2048 {
		batch *= 2
	}
	micro := max(1, 16/batch)
	if n < 1000 {
		micro = max(1, 8/batch)
	}
	add("batch_size", batch, "some 2,048 tokens go through a block at a time")
	add("grad_accumulation_steps", micro, "%d examples make a step; the base is read once for all of them", batch*micro)
	epochs := 1.0
	if n < 2000 && !l.text {
		epochs = 3
	}
	add("epochs", epochs, "%d steps in all", int(math.Ceil(epochs*float64(n)/float64(batch*micro))))
	if set.Valid == nil && n >= 40 {
		share := 0.05
		if n > 20_000 {
			share = 0.01
		}
		add("val_split", share, "there is no validation data; without it nobody sees when the model starts to learn by heart")
	}
	every := max(10, int(epochs*float64(n)/float64(batch*micro))/10)
	add("steps_per_eval", every, "ten times a run")
	add("save_every", every, "a run that is stopped goes on from there")
	add("save_total_limit", 2, "of the checkpoints, the last ones stay")
	add("seed", 0, "the same file gives the same bits")
	return s
}

// yaml writes the settings with their reasons.
func (r *initResult) yaml() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# nibble train --config %s\n# Written by nibble init. Every other setting: nibble train --print-config\n", filepath.Base(r.Path))
	for _, s := range r.Settings {
		value, err := yaml.MarshalWithOptions(s.Value, yaml.Flow(true))
		if err != nil {
			panic(err) // text, numbers and lists of text
		}
		fmt.Fprintf(&b, "\n# %s\n%s: %s\n", strings.ReplaceAll(s.Why, "\n", " "), s.Name, strings.TrimSpace(string(value)))
	}
	return b.String()
}
