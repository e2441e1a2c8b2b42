package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/optim"
)

// trainOptions are the flags of train.
type trainOptions struct {
	model, data, out, resume, config string
	mask                             data.Mask
	report                           int
	dryRun                           bool
	train.Config
}

func (a *app) trainCommand() *cobra.Command {
	o := trainOptions{Config: train.DefaultConfig()}
	cmd := &cobra.Command{
		Use:   "train --model IN --data PATH --output-dir DIR",
		Short: "Fine-tune a model: LoRA, QLoRA over a 4-bit base, or full",
		Long: `Fine-tune a model. The base stays on disk and is read block by block, forward
and backward; a quantized base makes it QLoRA. The result is a PEFT adapter, or
with --fine-tune-type full a model directory.

--data is a folder with train.jsonl (and valid.jsonl) or train.txt, or one such
file. A line of a .jsonl is {"text"} or {"prompt", "completion"}; with a prompt,
loss is taken on the completion only. Text is cut into windows of
--max-seq-length tokens.

--config gives any of these flags as YAML; flags on the command line win.
The first interrupt finishes the step, saves a checkpoint and ends; the second
ends at once. However a run ends, --resume goes on from its last checkpoint, to
the same result.`,
		Example: "  nibble train --model stories260K-nf4 --data shakespeare --output-dir adapters --iters 100",
		Args:    exactArgs(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.train(cmd.Context(), &o) },
	}
	o.flags(cmd.Flags())
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if o.config != "" {
			if err := applyConfig(o.config, cmd.Flags()); err != nil {
				return err
			}
		}
		return missing(cmd, "model", "data", "output-dir")
	}
	return cmd
}

func (o *trainOptions) flags(f *pflag.FlagSet) {
	c := &o.Config
	f.StringVar(&o.model, "model", "", "the base model")
	f.StringVar(&o.data, "data", "", "folder with train.jsonl or train.txt, or one file")
	f.StringVar(&o.out, "output-dir", "", "where the adapter, checkpoints and logs go")
	f.StringVar(&o.config, "config", "", "YAML file with any of these flags")
	f.StringVar(&o.resume, "resume", "", "go on from this checkpoint, or from the last one of this output directory")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the settings and the memory plan, and stop")

	f.StringVar(&c.FineTuneType, "fine-tune-type", c.FineTuneType, strings.Join(train.FineTuneTypes(), ", "))
	f.IntVar(&c.Iters, "iters", c.Iters, "optimizer steps (default: as --epochs says)")
	f.Float64Var(&c.Epochs, "epochs", c.Epochs, "times through the data")
	f.IntVar(&c.BatchSize, "batch-size", c.BatchSize, "examples in a micro-batch")
	f.IntVar(&c.GradAccumulationSteps, "grad-accumulation-steps", c.GradAccumulationSteps, "micro-batches in a step; the base is read once for all of them")
	f.IntVar(&c.MaxSeqLength, "max-seq-length", c.MaxSeqLength, "tokens of an example; longer ones are cut")
	f.Var((*maskFlag)(&o.mask), "mask-prompt", "take loss on completions only; =false takes it on prompts too (default: where there are prompts)")
	f.Lookup("mask-prompt").NoOptDefVal = "true"

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

	f.IntVar(&c.Rank, "rank", c.Rank, "rank of the adapters")
	f.Float64Var(&c.Alpha, "alpha", c.Alpha, "adapters are scaled by alpha/rank")
	f.Float64Var(&c.Dropout, "dropout", c.Dropout, "dropout on the adapters' inputs")
	f.BoolVar(&c.UseRSLoRA, "use-rslora", c.UseRSLoRA, "scale by alpha/sqrt(rank)")
	f.StringSliceVar(&c.TargetModules, "target-modules", c.TargetModules, "linear layers that get an adapter, or all-linear")

	f.IntVar(&c.SaveEvery, "save-every", c.SaveEvery, "steps between checkpoints; 0 is only at the end")
	f.IntVar(&c.SaveTotalLimit, "save-total-limit", c.SaveTotalLimit, "checkpoints to keep, the last ones; 0 is all")
	f.IntVar(&c.StepsPerEval, "steps-per-eval", c.StepsPerEval, "steps between evaluations; 0 is only before and after")
	f.IntVar(&o.report, "steps-per-report", 10, "steps between lines of progress")
	f.IntVar(&c.ValBatches, "val-batches", c.ValBatches, "batches of an evaluation; -1 is all")
	f.Uint64Var(&c.Seed, "seed", c.Seed, "makes the run repeatable")
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

// describeData says what the data holds and what was cut off.
func (a *app) describeData(set *data.Set) {
	for _, d := range []*data.Dataset{set.Train, set.Valid} {
		if d == nil {
			continue
		}
		s := d.Stats()
		line := fmt.Sprintf("%s: %s examples, %s tokens, loss on %s", d.Path(), thousands(int64(s.Examples)), thousands(s.Tokens), thousands(s.Labels))
		if s.Truncated > 0 {
			line += fmt.Sprintf("; %s examples lost %s tokens to --max-seq-length", thousands(int64(s.Truncated)), thousands(s.Cut))
		}
		a.note("%s", line)
	}
}

type trainResult struct {
	OutputDir string `json:"output_dir"`
	Type      string `json:"fine_tune_type"`
	Steps     int    `json:"steps"`

	TrainableParams int64   `json:"trainable_parameters"`
	Params          int64   `json:"parameters"`
	TrainableShare  float64 `json:"trainable_share"`

	Loss      float64  `json:"train_loss"`
	FirstLoss float64  `json:"first_train_loss"`
	Eval      *float64 `json:"eval_loss,omitempty"`
	FirstEval *float64 `json:"first_eval_loss,omitempty"`

	NumTokens int64   `json:"num_tokens"`
	Seconds   float64 `json:"seconds"`
	BytesRead int64   `json:"base_bytes_read"`
	DiskWait  float64 `json:"disk_wait_seconds"`
	Planned   int64   `json:"planned_memory"`
	PeakRSS   int64   `json:"peak_rss"`
}

func (r *trainResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s: %d steps in %.1f s over %s trained tokens\n", r.OutputDir, r.Steps, r.Seconds, thousands(r.NumTokens))
	fmt.Fprintf(w, "  trainable     %s of %s parameters (%.2f %%)\n", thousands(r.TrainableParams), thousands(r.Params), 100*r.TrainableShare)
	fmt.Fprintf(w, "  loss          %.4f -> %.4f in training", r.FirstLoss, r.Loss)
	if r.FirstEval != nil && r.Eval != nil {
		fmt.Fprintf(w, ", %.4f -> %.4f in validation", *r.FirstEval, *r.Eval)
	}
	fmt.Fprintln(w)
	fmt.Fprintf(w, "  base          %s read from disk, %.2f s waited for\n", memory.FormatSize(r.BytesRead), r.DiskWait)
	fmt.Fprintf(w, "  peak memory   %s (planned %s)\n", memory.FormatSize(r.PeakRSS), memory.FormatSize(r.Planned))
}

func (a *app) train(ctx context.Context, o *trainOptions) error {
	if err := o.Validate(); err != nil {
		return badUsage(err)
	}
	if err := fsx.CheckOutput(o.out, o.model); err != nil {
		return badUsage(err)
	}
	m, err := openModel(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	_, tok, err := m.tokenizer()
	if err != nil {
		return err
	}
	if context := int(m.arch.MaxPositionEmbeddings); o.MaxSeqLength > context {
		a.note("examples are cut at %d tokens, the model's context", context)
		o.MaxSeqLength = context
	}
	set, err := data.Open(o.data, data.Options{Tokenizer: tok, MaxSeqLength: o.MaxSeqLength, Mask: o.mask})
	if err != nil {
		return err
	}
	defer set.Close()
	a.describeData(set)
	longest := set.Train.Stats().Longest
	if set.Valid != nil {
		longest = max(longest, set.Valid.Stats().Longest)
	}
	plan, err := train.NewPlan(m.base(), &o.Config, longest, int64(a.memory))
	if err != nil {
		return err
	}
	if o.dryRun {
		return a.print(&dryRunResult{Config: o.Config.Resolved(set.Train.Len()), Plan: plan})
	}
	return a.runTraining(ctx, m, set, plan, o)
}

// runTraining trains once everything is known to be in order.
func (a *app) runTraining(ctx context.Context, m *model, set *data.Set, plan *train.Plan, o *trainOptions) (err error) {
	var from train.Checkpoint
	if o.resume != "" {
		c, files, err := openCheckpoint(o.resume)
		if err != nil {
			return err
		}
		defer files.Close()
		from = c
	}
	out, err := newTrainOutput(o.out, a.force, o.resume != "")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, out.close())
		if err != nil {
			out.empty()
		}
	}()
	var valid train.Examples
	if set.Valid != nil {
		valid = set.Valid
	}
	if plan.Scratch == "" {
		plan.Scratch = o.out
	}
	run, err := train.New(m.base(), o.Config, set.Train, valid, plan.Choices, out)
	if err != nil {
		return fmt.Errorf("%s: %w", o.model, err)
	}
	defer run.Close()
	if o.FineTuneType == "lora" {
		out.lora = adapterConfig(o, m.arch, run.Params())
	} else if out.files, err = m.checkpointFiles(dirOptions{dtype: tensor.F32}); err != nil {
		return err
	}
	if o.resume != "" {
		if err := run.Resume(from); err != nil {
			return fmt.Errorf("%s: %w", o.resume, err)
		}
	}
	if err := out.begin(from.Log); err != nil {
		return err
	}
	// The collector works as hard as it must to keep to the plan.
	debug.SetMemoryLimit(plan.Total)
	a.note("training %s of %s parameters (%.2f %%): %d steps over %d examples", thousands(plan.Trainable), thousands(plan.Params),
		100*float64(plan.Trainable)/float64(plan.Params), run.Steps(), set.Train.Len())

	bar := a.progress("train", int64(run.Steps()), itemsUnit)
	defer bar.stop()
	bar.skip(int64(from.State.Step))
	out.onLog = func(r train.Record) { a.reportStep(bar, r, run.Steps(), o.report) }
	start := time.Now()
	state, err := run.Train(ctx)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return hint.Add(err, "nothing is lost: go on with --resume %s", o.out)
		}
		return err
	}
	bar.stop()
	if err := a.finishTraining(ctx, m, out, run, o); err != nil {
		return err
	}
	stats := run.Engine().Stats()
	return a.print(&trainResult{
		OutputDir: o.out, Type: o.FineTuneType, Steps: state.Step,
		TrainableParams: plan.Trainable, Params: plan.Params, TrainableShare: float64(plan.Trainable) / float64(plan.Params),
		Loss: out.records[len(out.records)-1].Loss, FirstLoss: state.FirstLoss, Eval: state.EvalLoss, FirstEval: state.FirstEvalLoss,
		NumTokens: state.NumTokens, Seconds: time.Since(start).Seconds(), BytesRead: stats.BytesRead, DiskWait: stats.Waited.Seconds(),
		Planned: plan.Total, PeakRSS: memory.PeakRSS(),
	})
}

// reportStep shows a step: every so many a line, and with --json each as an
// object of its own.
func (a *app) reportStep(bar *bar, r train.Record, steps, every int) {
	if r.Step > 0 {
		bar.add(1)
	}
	if a.json {
		_ = json.NewEncoder(a.out).Encode(r)
		return
	}
	if a.quiet {
		return
	}
	if r.Step > 0 && (r.Step == 1 || r.Step == steps || every > 0 && r.Step%every == 0) {
		bar.println(fmt.Sprintf("step %d/%d  loss %.4f  grad norm %.3f  lr %.2e  %.0f tokens/s  peak %s",
			r.Step, steps, r.Loss, r.GradNorm, r.LearningRate, r.TokensPerSecond, memory.FormatSize(memory.PeakRSS())))
	}
	if r.EvalLoss != nil {
		bar.println(fmt.Sprintf("step %d/%d  validation loss %.4f", r.Step, steps, *r.EvalLoss))
	}
}

// adapterConfig is the adapter_config.json of the run.
func adapterConfig(o *trainOptions, m *arch.Model, params []*optim.Param) *peft.Config {
	c := peft.NewConfig()
	c.TaskType, c.BaseModel = "CAUSAL_LM", o.model
	c.R, c.LoraAlpha, c.LoraDropout, c.UseRSLoRA = int64(o.Rank), o.Alpha, o.Dropout, o.UseRSLoRA
	c.TargetModules = peft.Modules{Names: targets(optim.Values(params))}
	c.FanInFanOut = m.FanInFanOut()
	return c
}

// finishTraining writes the result of a run into its output directory.
func (a *app) finishTraining(ctx context.Context, m *model, out *trainOutput, run *train.Run, o *trainOptions) error {
	if err := out.plot(); err != nil {
		return err
	}
	trained := run.Trained()
	if out.lora != nil {
		return peft.Write(ctx, o.out, out.lora, trained, true)
	}
	// The model is made beside its final place, in the type of the base, and
	// its files moved there, config.json last: until then it is no model.
	plan, err := castPlan(trained, func(info tensor.Info) tensor.DType {
		base, err := m.view.Info(info.Name)
		if err != nil {
			return info.DType
		}
		return base.DType
	}, nil)
	if err != nil {
		return err
	}
	plan.Meta = tensor.Meta{{Key: "format", Value: "pt"}}
	temp := filepath.Join(o.out, ".model.nibble")
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if _, err := a.writeDir(ctx, m, trained, plan, temp, dirOptions{dtype: m.dtype()}); err != nil {
		return err
	}
	return moveUp(temp, o.out)
}

// moveUp moves the files of a model directory to another one, config.json last.
func moveUp(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, last := range []bool{false, true} {
		for _, e := range entries {
			if (e.Name() == hf.ConfigName) == last {
				if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return os.Remove(from)
}

// dryRunResult is what train --dry-run prints.
type dryRunResult struct {
	Config train.Config `json:"config"`
	Plan   *train.Plan  `json:"plan"`
}

func (r *dryRunResult) text(w io.Writer) {
	c, _ := json.MarshalIndent(r.Config, "", "  ")
	fmt.Fprintf(w, "%s\n\nmemory, at most:\n", c)
	for _, l := range r.Plan.Lines {
		fmt.Fprintf(w, "  %12s  %s\n", memory.FormatSize(l.Bytes), l.What)
	}
	fmt.Fprintf(w, "  %12s  in all\n", memory.FormatSize(r.Plan.Total))
	fmt.Fprintf(w, "\ntrainable: %s of %s parameters (%.2f %%)\n", thousands(r.Plan.Trainable), thousands(r.Plan.Params), 100*float64(r.Plan.Trainable)/float64(r.Plan.Params))
}
