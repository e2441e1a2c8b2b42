package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/formats/modelcard"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/train/data"
)

// pathFlags are the flags whose values are paths on the machine of the run, of which a
// card says the last part, and privateFlags those that it does not repeat.
var (
	pathFlags    = []string{"model", "data", "output-dir", "config", "resume", "adapter", "scratch-dir", "export-dir", "sample-prompts", "chat-template"}
	privateFlags = []string{"sample-prompt"}
)

// given returns the flags that were set, as a command line for a card.
func given(f *pflag.FlagSet, setBy map[string]string) []string {
	line := []string{"train"}
	f.VisitAll(func(x *pflag.Flag) {
		if setBy[x.Name] == "" || slices.Contains(privateFlags, x.Name) {
			return
		}
		values := []string{x.Value.String()}
		if list, ok := x.Value.(pflag.SliceValue); ok {
			if values = list.GetSlice(); x.Value.Type() != "stringArray" {
				values = []string{strings.Join(values, ",")}
			}
		}
		for _, v := range values {
			if slices.Contains(pathFlags, x.Name) && v != "" && !(x.Name == "model" && isHubName(v)) {
				v = lastOf(v)
			}
			if x.Value.Type() == "bool" {
				if line = append(line, "--"+x.Name); v != "true" {
					line[len(line)-1] += "=" + v
				}
				continue
			}
			line = append(line, "--"+x.Name, v)
		}
	})
	return line
}

// baseName is what a card calls the base: its name on a hub, or the last part of its path.
func (o *trainOptions) baseName(m *model) string {
	if repo := published(o.model); repo != o.model || isHubName(repo) {
		return repo
	}
	return m.name()
}

// writeCard writes the README.md of the result: what it was made of and how. Paths are
// their last parts, and nothing of the machine is in it but its kind.
func (a *app) writeCard(m *model, set *data.Set, r *trainResult, o *trainOptions) error {
	base := o.baseName(m)
	d := modelcard.Derivation{Bases: []string{base}, Relation: "finetune", Tags: []string{"nibble"}, Section: o.cardSection(m, set, r)}
	var text []byte
	if o.Full() {
		var err error
		if text, err = m.readme(); err != nil {
			return err
		}
	} else {
		// As PEFT's card has it.
		text = []byte("---\nlibrary_name: peft\npipeline_tag: text-generation\n---\n")
		d.Relation, d.Tags = "adapter", []string{"base_model:adapter:" + base, "lora", "nibble"}
	}
	card, notes := modelcard.Derive(text, d)
	for _, n := range notes {
		a.note("%s", n)
	}
	return fsx.WriteFile(filepath.Join(o.out, modelcard.ReadmeName), card, true)
}

func (o *trainOptions) cardSection(m *model, set *data.Set, r *trainResult) string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", name, modelcard.Cell(fmt.Sprintf(format, args...)))
	}
	fmt.Fprintf(&b, "# %s\n\nTrained with nibble %s.\n\n| | |\n|---|---|\n", modelcard.Cell(lastOf(o.out)), version)
	stored := ""
	if m.quantized() {
		stored = ", quantized (" + strings.Join(kindsStored(m), ", ") + ")"
	}
	row("base", "%s%s", o.baseName(m), stored)
	count := func(s data.Stats) string {
		return fmt.Sprintf("%s examples, %s tokens, loss on %s", thousands(int64(s.Examples)), thousands(s.Tokens), thousands(s.Labels))
	}
	split := set.Valid != nil
	for _, f := range set.Files {
		switch f.Part {
		case "train":
			row("training data", "%s: %s", filepath.Base(f.Path), count(f.Stats))
		case "valid":
			row("validation data", "%s: %s", filepath.Base(f.Path), count(f.Stats))
			split = false
		}
	}
	if split {
		row("validation data", "of that, %s", count(set.Valid.Stats()))
	}
	if o.Full() {
		row("method", "full fine-tuning")
	} else {
		row("method", "%s, rank %d, alpha %v, dropout %v", strings.NewReplacer("lora", "LoRA", "dora", "DoRA").Replace(o.FineTuneType), o.Rank, o.Alpha, o.Dropout)
	}
	row("trained", "%s of %s parameters (%.2f %%)", thousands(r.TrainableParams), thousands(r.Params), 100*r.TrainableShare)
	row("steps", "%d, with %d x %d examples of up to %d tokens each", r.Steps, o.BatchSize, o.GradAccumulationSteps, o.MaxSeqLength)
	row("optimizer", "%s, learning rate %v, %s", o.Optimizer, o.LearningRate, o.LRSchedulerType)
	row("seed", "%d", o.Seed)
	row("training loss", "%.4f -> %.4f", r.FirstLoss, r.Loss)
	if r.FirstEval != nil && r.Eval != nil {
		row("validation loss", "%.4f -> %.4f, %s", *r.FirstEval, *r.Eval, perplexity(*r.Eval))
	}
	for _, line := range r.lines() {
		row("", "%s", line)
	}
	row("tokens", "%s with loss", thousands(r.NumTokens))
	row("time", "%v", time.Duration(r.Seconds*float64(time.Second)).Round(time.Second))
	row("memory", "%s at most", memory.FormatSize(r.PeakRSS))
	fmt.Fprintf(&b, "\n    %s\n", strings.ToValidUTF8(strings.Join(strings.Fields(shellLine(o.line)), " "), "\ufffd"))
	return b.String()
}

// kindsStored names the quantized types of a model's tensors.
func kindsStored(m *model) (kinds []string) {
	src := m.original()
	for info := range src.All() {
		if d := info.DType; (d.Opaque() || blockType(d)) && !slices.Contains(kinds, d.String()) {
			kinds = append(kinds, d.String())
		}
	}
	return kinds
}
