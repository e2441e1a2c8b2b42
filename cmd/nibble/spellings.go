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
	"lora-layers": "num-layers", "peft-layers-to-transform": "layers-to-transform",
	"text-feature": "text-field", "prompt-feature": "prompt-field", "completion-feature": "completion-field", "chat-feature": "messages-field",
	"overwrite-output-dir": "force",
	"optim":                "optimizer", "lr-scheduler": "lr-scheduler-type",
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
	"train": "train does nothing else", "do-train": "train does nothing else", "stage": "train does nothing else",
	"test": "nibble eval measures a test set", "test-batches": "nibble eval measures a test set",
	"grad-checkpoint": planDecides, "gradient-checkpointing": planDecides, "gradient-checkpointing-kwargs": planDecides, "clear-cache-threshold": planDecides,
	"bf16": float32Only, "fp16": float32Only, "tf32": float32Only, "dtype": float32Only, "torch-dtype": float32Only,
	"flash-attention": ownKernels, "flash-attn": ownKernels, "attn-implementation": ownKernels, "sdp-attention": ownKernels, "xformers-attention": ownKernels,
	"trust-remote-code": "no code of a model is run",
	"load-in-4bit":      asStored, "load-in-8bit": asStored, "use-4bit": asStored, "quantization-bit": asStored,
	"bnb-4bit-quant-type": asStored, "bnb-4bit-compute-dtype": asStored, "bnb-4bit-use-double-quant": asStored,
	"lora-fan-in-fan-out": "it is seen from the model", "fan-in-fan-out": "it is seen from the model", "task-type": "models continue text",
	"pad-to-sequence-len": notPadded, "group-by-length": notPadded, "pad-to-max-length": notPadded,
	"model-type": fromFiles, "tokenizer-type": fromFiles, "is-llama-derived-model": fromFiles, "auto-model-class": fromFiles,
	"dataset-prepared-path": "tokens are kept in --scratch-dir while the run goes on", "preprocessing-num-workers": "all --threads read the data",
	"dataloader-num-workers": "all --threads read the data", "overwrite-cache": "nothing is kept", "ddp-timeout": "there is one process",
	"logging-dir": "TensorBoard's files go to --output-dir", "logging-strategy": "steps are counted by logging_steps", "eval-strategy": "steps are counted by eval_steps",
	"evaluation-strategy": "steps are counted by eval_steps", "save-strategy": "steps are counted by save_steps", "plot-loss": "the loss is always drawn",
	"per-device-eval-batch-size": "an evaluation has the batches of training", "remove-unused-columns": "they are passed over",
	"wandb": noService, "wandb-project": noService, "wandb-entity": noService, "wandb-watch": noService, "wandb-name": noService, "wandb-log-model": noService,
	"wandb-run-id": noService, "run-name": noService, "project-name": noService, "swanlab": noService, "push-to-hub": noService, "hub-model-id": noService, "hub-strategy": noService,
	"strict": "keys that are unknown are always refused", "local-rank": "there is one process", "deepspeed": "there is one process", "fsdp": "there is one process", "fsdp-config": "there is one process",
}

const (
	planDecides = "the memory plan decides what is computed again"
	float32Only = "arithmetic is in float32"
	ownKernels  = "attention is nibble's own"
	asStored    = "the base is trained over as it is stored; nibble quantize makes one of 4 bits"
	notPadded   = "examples are never padded"
	fromFiles   = "it is read off the model's files"
	noService   = "nothing is sent anywhere"
)

// valuesElsewhere are what other values of flags mean.
var valuesElsewhere = map[string]map[string]string{
	"target-modules": {"all": "all-linear"},                // LLaMA-Factory
	"optimizer":      {"adam": "adamw"},                    // mlx-lm's, without weight decay the same
	"overlong":       {"raise": "error"},                   // axolotl
	"report-to":      {"wandb": "none", "swanlab": "none"}, // mlx-lm
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

// Switches that ask for one value of a flag: PEFT's for DoRA, axolotl's for all linear
// layers.
var switchesTo = map[string]yaml.MapItem{
	"use-dora":           {Key: "fine-tune-type", Value: "dora"},
	"lora-target-linear": {Key: "target-modules", Value: "all-linear"},
}

// switchNames are all switches, each with what it says.
func switchNames() map[string]string {
	list := make(map[string]string)
	for name, of := range opposites {
		list[name] = "the opposite of " + of
	}
	for name, to := range switchesTo {
		list[name] = fmt.Sprintf("the same as %v: %v", to.Key, to.Value)
	}
	return list
}

// switched returns the flags that a switch of the peers stands for, if name is one.
func switched(name string, value any) (list []yaml.MapItem, ok bool, err error) {
	of := opposites[name]
	to, known := switchesTo[name]
	if of == "" && !known {
		return nil, false, nil
	}
	on, err := strconv.ParseBool(fmt.Sprint(value))
	switch {
	case err != nil:
		return nil, true, fmt.Errorf("%v, where true or false is wanted", value)
	case of != "":
		return []yaml.MapItem{{Key: of, Value: !on}}, true, nil
	case on:
		return []yaml.MapItem{to}, true, nil
	}
	return nil, true, nil
}

// switches adds the switches of the peers to the command line.
func (o *trainOptions) switches(f *pflag.FlagSet) {
	for _, name := range slices.Sorted(maps.Keys(switchNames())) {
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
	"lora-parameters":  loraParameters,
	"lr-schedule":      lrSchedule,
	"optimizer-config": optimizerConfig,
}

// optimizerConfig reads mlx-lm's optimizer_config: settings by the name of the optimizer.
func optimizerConfig(m yaml.MapSlice) (out []yaml.MapItem, notes []string, err error) {
	for _, of := range m {
		list, ok := of.Value.(yaml.MapSlice)
		if !ok {
			continue // {}
		}
		for _, e := range list {
			switch key := fmt.Sprint(e.Key); key {
			case "betas":
				betas, _ := e.Value.([]any)
				if len(betas) != 2 {
					return nil, nil, fmt.Errorf("betas is %v, want two numbers", e.Value)
				}
				out = append(out, yaml.MapItem{Key: "adam-beta1", Value: betas[0]}, yaml.MapItem{Key: "adam-beta2", Value: betas[1]})
			case "eps":
				out = append(out, yaml.MapItem{Key: "adam-epsilon", Value: e.Value})
			case "weight_decay", "momentum":
				out = append(out, yaml.MapItem{Key: strings.ReplaceAll(key, "_", "-"), Value: e.Value})
			case "bias_correction":
				notes = append(notes, "bias_correction: not used: AdamW always corrects here, as in PyTorch")
			default:
				return nil, nil, fmt.Errorf("%v: unknown key %q; want betas, eps, weight_decay or momentum", of.Key, key)
			}
		}
	}
	return out, notes, nil
}

// datasets reads axolotl's list of data sets, each with a path.
func datasets(v any) (out []yaml.MapItem, notes []string, err error) {
	list, _ := v.([]any)
	var paths []any
	for _, x := range list {
		m, ok := x.(yaml.MapSlice)
		path := any(nil)
		for _, e := range m {
			switch key := fmt.Sprint(e.Key); key {
			case "path":
				path = e.Value
			case "type", "ds_type", "split":
				notes = append(notes, fmt.Sprintf("datasets: %s: not used: what rows are is seen from the first of them", key))
			default:
				return nil, nil, fmt.Errorf("unknown key %q; want path, and flags such as messages_field outside of it", key)
			}
		}
		if !ok || path == nil {
			return nil, nil, fmt.Errorf("%v, where a mapping with a path is wanted", x)
		}
		paths = append(paths, path)
	}
	if len(paths) == 0 {
		return nil, nil, fmt.Errorf("%v, where a list is wanted", v)
	}
	return []yaml.MapItem{{Key: "data", Value: paths}}, notes, nil
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
