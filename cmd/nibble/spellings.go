package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/internal/hint"
)

// spellings are what flags of train are called elsewhere: by mlx-lm, transformers, PEFT,
// TRL, axolotl and LLaMA-Factory. On the command line and in a file either will do.
var spellings = map[string]string{
	"model-name-or-path": "model", "base-model": "model",
	"dataset": "data", "dataset-name": "data",
	"adapter-path": "output-dir",
	"max-steps":    "iters", "num-train-epochs": "epochs", "num-epochs": "epochs",
	"per-device-train-batch-size": "batch-size", "micro-batch-size": "batch-size",
	"gradient-accumulation-steps": "grad-accumulation-steps",
	"max-length":                  "max-seq-length", "max-seq-len": "max-seq-length", "cutoff-len": "max-seq-length", "sequence-len": "max-seq-length",
	"finetuning-type": "fine-tune-type",
	"lora-r":          "rank", "lora-rank": "rank", "lora-alpha": "alpha", "lora-dropout": "dropout",
	"lora-target-modules": "target-modules", "lora-target": "target-modules",
	"lora-modules-to-save": "modules-to-save", "additional-target": "modules-to-save",
	"optim": "optimizer", "lr-scheduler": "lr-scheduler-type",
	"logging-steps": "steps-per-report", "eval-steps": "steps-per-eval", "save-steps": "save-every",
	"resume-from-checkpoint": "resume",
	"completion-only-loss":   "mask-prompt",
	"sample-packing":         "packing",
	"val-set-size":           "val-split", "val-size": "val-split",
	"excess-length-strategy": "overlong",
	"chat-template-path":     "chat-template",
}

// opposites are switches that elsewhere say no where a flag here says yes.
var opposites = map[string]string{"train-on-inputs": "mask-prompt", "train-on-prompt": "mask-prompt", "train-on-source": "mask-prompt"}

// moot are keys of the peers' files that ask for nothing here, and why.
var moot = map[string]string{
	"train": "train does nothing else", "do-train": "train does nothing else",
	"grad-checkpoint": "the memory plan decides what is computed again", "gradient-checkpointing": "the memory plan decides what is computed again",
	"bf16": "arithmetic is in float32", "fp16": "arithmetic is in float32",
	"trust-remote-code": "no code of a model is run",
}

// spelled makes a flag of train known by the names that it has elsewhere, with dashes or
// underscores.
func spelled(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	name = strings.ReplaceAll(name, "_", "-")
	if own, ok := spellings[name]; ok {
		name = own
	}
	return pflag.NormalizedName(name)
}

// otherName is what the flag own is called elsewhere.
type otherName struct{ name, own string }

// otherNames lists the spellings in the order of their names.
func otherNames() (list []otherName) {
	for _, name := range slices.Sorted(maps.Keys(spellings)) {
		list = append(list, otherName{name, spellings[name]})
	}
	return list
}

// useDoRA is PEFT's switch for DoRA.
const useDoRA = "use-dora"

// switched returns the flags that a switch of the peers stands for, if name is one.
func switched(name string, value any) (list []yaml.MapItem, ok bool, err error) {
	of := opposites[name]
	if of == "" && name != useDoRA {
		return nil, false, nil
	}
	on, err := strconv.ParseBool(fmt.Sprint(value))
	switch {
	case err != nil:
		return nil, true, fmt.Errorf("%v, where true or false is wanted", value)
	case of != "":
		return []yaml.MapItem{{Key: of, Value: !on}}, true, nil
	case on:
		return []yaml.MapItem{{Key: "fine-tune-type", Value: "dora"}}, true, nil
	}
	return nil, true, nil
}

// switches adds the switches of the peers to the command line.
func (o *trainOptions) switches(f *pflag.FlagSet) {
	for _, name := range append(slices.Sorted(maps.Keys(opposites)), useDoRA) {
		f.BoolFunc(name, "as others call it", func(s string) error {
			list, _, err := switched(name, s)
			for _, e := range list {
				err = errors.Join(err, f.Set(fmt.Sprint(e.Key), fmt.Sprint(e.Value)))
			}
			return err
		})
		_ = f.MarkHidden(name)
	}
}

// mappings are those of mlx-lm's files, by key: each gives the flags that it stands
// for, in order, and what of it is not as there.
var mappings = map[string]func(yaml.MapSlice) (flags []yaml.MapItem, notes []string, err error){
	"lora-parameters": loraParameters,
	"lr-schedule":     lrSchedule,
}

// loraParameters reads mlx-lm's lora_parameters, in which scale is alpha/rank.
func loraParameters(m yaml.MapSlice) (out []yaml.MapItem, _ []string, err error) {
	var rank, scale any
	for _, e := range m {
		switch key := fmt.Sprint(e.Key); key {
		case "rank":
			rank = e.Value
			out = append(out, e)
		case "scale":
			scale = e.Value
		case "alpha", "dropout":
			out = append(out, e)
		case "keys":
			out = append(out, yaml.MapItem{Key: "target-modules", Value: e.Value})
		default:
			return nil, nil, fmt.Errorf("unknown key %q; want rank, scale, alpha, dropout or keys", key)
		}
	}
	if scale == nil {
		return out, nil, nil
	}
	r, err := numberOf(rank)
	if err != nil {
		return nil, nil, fmt.Errorf("scale is alpha/rank, and rank is no number: %v", rank)
	}
	s, err := numberOf(scale)
	if err != nil {
		return nil, nil, fmt.Errorf("scale: %w", err)
	}
	return append(out, yaml.MapItem{Key: "alpha", Value: r * s}), nil, nil
}

// lrSchedule reads mlx-lm's lr_schedule: the name of a schedule of mlx.optimizers with its
// arguments, and steps of warm-up.
func lrSchedule(m yaml.MapSlice) (out []yaml.MapItem, notes []string, err error) {
	types := map[string]string{"cosine_decay": "cosine", "linear_schedule": "linear", "constant": "constant"}
	for _, e := range m {
		switch key := fmt.Sprint(e.Key); key {
		case "name":
			name := fmt.Sprint(e.Value)
			if types[name] == "" {
				return nil, nil, hint.Add(fmt.Errorf("the schedule is %q", name), "want one of: %s", strings.Join(slices.Sorted(maps.Keys(types)), ", "))
			}
			out = append(out, yaml.MapItem{Key: "lr-scheduler-type", Value: types[name]})
		case "warmup":
			out = append(out, yaml.MapItem{Key: "warmup-steps", Value: e.Value})
		case "warmup_init":
			if v, err := numberOf(e.Value); err != nil || v > 1e-6 {
				return nil, nil, fmt.Errorf("warmup_init is %v; warm-up begins at 0 here", e.Value)
			}
		case "arguments":
			list, _ := e.Value.([]any)
			if len(list) == 0 {
				return nil, nil, fmt.Errorf("arguments is %v, want a list that begins with the learning rate", e.Value)
			}
			out = append(out, yaml.MapItem{Key: "learning-rate", Value: list[0]})
			// cosine_decay(init, decay_steps, end), linear_schedule(init, end, steps)
			notes = append(notes, fmt.Sprintf("lr_schedule: the learning rate goes from %v to 0 over all steps; of arguments %v the rest is not used", list[0], list))
		default:
			return nil, nil, fmt.Errorf("unknown key %q; want name, warmup or arguments", key)
		}
	}
	return out, notes, nil
}

func numberOf(v any) (float64, error) { return strconv.ParseFloat(fmt.Sprint(v), 64) }
