package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
	"github.com/seed18967229/nibble/train/data"
)

func (a *app) trainCommand() *cobra.Command {
	o := trainOptions{Config: train.DefaultConfig()}
	cmd := &cobra.Command{
		Use:   "train --model IN --data PATH --output-dir DIR",
		Short: "Fine-tune a model: LoRA, DoRA, QLoRA over a 4-bit base, or full",
		Long: `Fine-tune a model. The base stays on disk and is read block by block, forward
and backward; a quantized base makes it QLoRA. The result is a PEFT adapter, or
with --fine-tune-type full a model directory.

--data is a folder with a file train (and valid, test) or one file: JSON Lines,
JSON, CSV, TSV, Parquet or text, also packed as .gz or .zst. Rows are {"text"},
{"prompt", "completion"}, chats ({"messages"} or {"conversations"}) or
{"instruction", "input", "output"}, which the first row of each file tells.
Loss is taken on completions and on the assistant's turns only. Text is cut into
windows of --max-seq-length tokens.

--preset gives the settings that others trained with, --config any of these flags
as YAML; the file wins over the preset, and the command line over both.
The first interrupt finishes the step, saves a checkpoint and ends; the second
ends at once. However a run ends, --resume goes on from its last checkpoint, to
the same result.`,
		Example: "  nibble train --model stories260K-nf4 --data shakespeare --output-dir adapters --iters 100",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.printConfig:
				return printConfig(a.out, cmd.Flags(), o.setBy)
			case o.printSchema:
				return printSchema(a.out, cmd.Flags())
			}
			return a.train(cmd.Context(), &o)
		},
	}
	o.flags(cmd.Flags())
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.settle(cmd.Flags()); err != nil {
			return err
		}
		a.limit() // a file may have said how much, and named models
		if err := a.fetchInputs(cmd, nil); err != nil {
			return err
		}
		if o.printConfig || o.printSchema {
			return nil
		}
		o.line = given(cmd.Flags(), o.setBy)
		return missing(cmd, "model", "data", "output-dir")
	}
	return cmd
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
	Scratch   int64   `json:"scratch_bytes"`
	Planned   int64   `json:"planned_memory"`
	PeakRSS   int64   `json:"peak_rss"`

	watched
	Exports []exportResult `json:"exports,omitempty"`
}

func (r *trainResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s: %d steps in %.1f s over %s trained tokens\n", r.OutputDir, r.Steps, r.Seconds, thousands(r.NumTokens))
	fmt.Fprintf(w, "  trainable     %s of %s parameters (%.2f %%)\n", thousands(r.TrainableParams), thousands(r.Params), 100*r.TrainableShare)
	fmt.Fprintf(w, "  loss          %.4f -> %.4f in training", r.FirstLoss, r.Loss)
	if r.FirstEval != nil && r.Eval != nil {
		fmt.Fprintf(w, ", %.4f -> %.4f in validation", *r.FirstEval, *r.Eval)
	}
	fmt.Fprintln(w)
	fmt.Fprintf(w, "  disk          %s of the base read", memory.FormatSize(r.BytesRead))
	if r.Scratch > 0 {
		fmt.Fprintf(w, ", %s written to files of the run and read back", memory.FormatSize(r.Scratch))
	}
	fmt.Fprintf(w, "; %.2f s waited for (%.1f %%)\n", r.DiskWait, 100*r.DiskWait/max(r.Seconds, 1e-9))
	fmt.Fprintf(w, "  peak memory   %s (planned %s)\n", memory.FormatSize(r.PeakRSS), memory.FormatSize(r.Planned))
	for _, line := range r.lines() {
		fmt.Fprintf(w, "  %s\n", line)
	}
	for _, x := range r.Exports {
		x.text(w)
	}
}

func (a *app) train(ctx context.Context, o *trainOptions) error {
	if err := o.readPrompts(); err != nil {
		return err
	}
	if err := o.Validate(); err != nil {
		return badUsage(err)
	}
	if err := fsx.CheckOutput(o.out, o.model); err != nil {
		return badUsage(err)
	}
	for _, n := range o.notes {
		a.note("%s: %s", o.config, n)
	}
	m, err := openModel(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	from, err := o.goOn(m)
	if err != nil {
		return err
	}
	if from != nil {
		defer from.Close()
		if err := o.Validate(); err != nil {
			return fmt.Errorf("%s: %w", o.adapter, err)
		}
	}
	if err := o.checkAdapters(m); err != nil {
		return err
	}
	if context := int(m.arch.MaxPositionEmbeddings); o.MaxSeqLength > context {
		a.note("examples are cut at %d tokens, the model's context", context)
		o.MaxSeqLength = context
	}
	v, tok, err := m.tokenizer()
	if err != nil {
		return err
	}
	rows, err := o.rowFlags.options(m, tok, o.MaxSeqLength)
	if err != nil {
		return err
	}
	set, err := a.openData(o, rows)
	if err != nil {
		return err
	}
	defer set.Close()
	a.describeData(set, o)
	talk, err := o.talk(m, v, set)
	if err != nil {
		return err
	}
	if talk.given {
		// What the model is trained with is what it is to be spoken to with.
		m.template = talk.template.Source()
	}
	findings, err := a.examine(rows, set)
	if err != nil {
		return err
	}
	if err := o.setSampler(m, v, tok, talk); err != nil {
		return err
	}
	if err := o.CheckData(set.Valid != nil); err != nil {
		return badUsage(err)
	}
	if o.EarlyStoppingPatience > 0 && !o.LoadBestModelAtEnd {
		a.note("without --load-best-model-at-end the result of a run that ends early is that of its last step, not of its best")
	}
	plan, err := a.plan(ctx, m, set, o)
	if err != nil {
		return err
	}
	exportable, err := a.checkExports(m, plan, o)
	if err != nil {
		return err
	}
	if o.dryRun {
		p, err := newPreview(tok, set, plan, talk, o)
		if err != nil {
			return err
		}
		p.Findings = findings
		return a.print(&dryRunResult{Config: o.Config.Resolved(set.Train.Len()), SetBy: o.setBy, Plan: plan, preview: p, Exports: exportable})
	}
	r, err := a.runTraining(ctx, m, set, plan, o)
	if err != nil {
		return err
	}
	r.Exports, err = a.export(ctx, exportable, o, newModelfile(m, v, talk, o))
	return errors.Join(a.print(r), err)
}

// runTraining trains once everything is known to be in order.
func (a *app) runTraining(ctx context.Context, m *model, set *data.Set, plan *train.Plan, o *trainOptions) (_ *trainResult, err error) {
	var from train.Checkpoint
	if o.resume != "" {
		c, files, err := openCheckpoint(o.resume)
		if err != nil {
			return nil, err
		}
		defer files.Close()
		from = c
		if err := o.Config.SameRun(&c.State.Config); err != nil {
			return nil, fmt.Errorf("%s: %w", o.resume, err)
		}
		if step := c.State.BestStep; o.LoadBestModelAtEnd && step > 0 {
			if _, err := o.bestDir(step); err != nil {
				return nil, err
			}
		}
	}
	screens, err := a.newScreens(o, plan)
	if err != nil {
		return nil, err
	}
	defer screens.close()
	out, err := newTrainOutput(o.out, a.force, o.resume != "")
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, out.close())
		if err != nil && len(out.records) == 0 && o.resume == "" {
			os.RemoveAll(filepath.Join(o.out, initialName))
			out.empty()
		}
	}()
	defer func() { screens.end(err) }()
	started, err := a.start(ctx, m, o)
	if err != nil {
		return nil, err
	}
	defer started.Close()
	var valid train.Examples
	if set.Valid != nil {
		valid = set.Valid
	}
	base := m.base()
	if base.Fingerprint, err = m.baseFingerprint(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", o.model, err)
	}
	run, err := train.New(base, o.Config, set.Train, valid, plan, out)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.model, err)
	}
	defer run.Close()
	if !o.Full() {
		if out.lora, err = adapterConfig(o, m.arch); err != nil {
			return nil, err
		}
		out.template = m.template
	} else if out.files, err = m.checkpointFiles(dirOptions{dtype: tensor.F32}); err != nil {
		return nil, err
	}
	if o.resume != "" {
		if err := run.Resume(from); err != nil {
			return nil, fmt.Errorf("%s: %w", o.resume, err)
		}
	}
	if err := out.begin(from.Log); err != nil {
		return nil, err
	}
	// At what is in use the collector would run all the time; garbage is in the plan, and
	// collected after every step.
	const spare = 32 << 20
	debug.SetMemoryLimit(plan.Total - plan.Mapped + spare)
	a.note("training %s of %s parameters (%.2f %%): %d steps over %d examples", thousands(plan.Trainable), thousands(plan.Params),
		100*float64(plan.Trainable)/float64(plan.Params), run.Steps(), set.Train.Len())

	screens.begin(run.Steps(), &from)
	out.onSave = screens.draw
	out.onLog = func(r train.Record) {
		screens.log(r)
		runtime.GC() // a step leaves little, and the plan has no room for much
	}
	run.SaveWhen(out.asked)
	start := time.Now()
	state, err := run.Train(ctx)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil, hint.Add(err, "nothing is lost: go on with --resume %s", o.out)
		}
		return nil, err
	}
	screens.bar.stop()
	if err := a.finishTraining(ctx, m, out, run, &state, o); err != nil {
		return nil, err
	}
	stats, files := run.Engine().Stats(), run.Stats()
	r := &trainResult{
		OutputDir: o.out, Type: o.FineTuneType, Steps: state.Step,
		TrainableParams: plan.Trainable, Params: plan.Params, TrainableShare: float64(plan.Trainable) / float64(plan.Params),
		Loss: out.records[len(out.records)-1].Loss, FirstLoss: state.FirstLoss, Eval: state.EvalLoss, FirstEval: state.FirstEvalLoss,
		NumTokens: state.NumTokens, Seconds: time.Since(start).Seconds(), BytesRead: stats.BytesRead + stats.HeadRead, DiskWait: (stats.Waited + stats.Scratch.Waited + files.Waited).Seconds(),
		Scratch: stats.Scratch.Read + stats.Scratch.Written + files.Read + files.Written,
		Planned: plan.Total, PeakRSS: memory.PeakRSS(),
		watched: watchedBy(o, &state, run.Stopped(), out.records),
	}
	return r, a.writeCard(m, set, r, o)
}

// adapterConfig is the adapter_config.json of the run.
func adapterConfig(o *trainOptions, m *arch.Model) (*peft.Config, error) {
	c, err := o.PEFT(m)
	if err != nil {
		return nil, err
	}
	c.BaseModel = published(o.model)
	return c, nil
}

// finishTraining writes the result of a run into its output directory.
func (a *app) finishTraining(ctx context.Context, m *model, out *trainOutput, run *train.Run, state *train.State, o *trainOptions) (err error) {
	trained := run.Trained()
	best, done, err := o.best(state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if best != nil {
		trained = best.Trained
	}
	if out.lora != nil {
		if err := a.storeAdapter(ctx, m, out.lora, trained, o); err != nil || m.template == "" {
			return err
		}
		return fsx.WriteFile(filepath.Join(o.out, templateName), []byte(m.template), true)
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
