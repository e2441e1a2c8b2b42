package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/cmd/nibble/demo"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
)

func (a *app) demoCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the main job on an embedded model: quantize, train, merge, convert, generate",
		Long: `Write out a small trained model and some Shakespeare, and take it through
everything: quantize to NF4, measure, train a QLoRA adapter over the 4-bit base,
merge it, convert to GGUF, generate. Each step is printed as the command that
does the same. About a minute on two processors.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), out) },
	}
	cmd.Flags().StringVar(&out, "out", "nibble-demo", "directory for everything it makes")
	return cmd
}

type demoResult struct {
	Dir string `json:"dir"`

	LossBefore float64 `json:"loss_before"` // of the NF4 base
	LossAfter  float64 `json:"loss_after"`  // of the base with the adapter

	Perplexity struct {
		F32    float64 `json:"f32"`
		NF4    float64 `json:"nf4"`
		QLoRA  float64 `json:"qlora"`
		Merged float64 `json:"merged"`
	} `json:"perplexity"`

	TrainableShare float64          `json:"trainable_share"`
	Disk           map[string]int64 `json:"bytes_on_disk"`
	Seconds        float64          `json:"seconds"`
	PeakRSS        int64            `json:"peak_rss"`

	Prompt string `json:"prompt"`
	Before string `json:"text_before"`
	After  string `json:"text_after"`
}

func (r *demoResult) text(w io.Writer) {
	fmt.Fprintf(w, "\n%-26s %s\n", "on held-out Shakespeare", "loss    perplexity")
	for _, x := range []struct {
		name string
		ppl  float64
	}{
		{"f32 base", r.Perplexity.F32}, {"NF4 base", r.Perplexity.NF4}, {"NF4 base + QLoRA adapter", r.Perplexity.QLoRA}, {"merged", r.Perplexity.Merged},
	} {
		fmt.Fprintf(w, "  %-24s %.4f  %.2f\n", x.name, lossOf(x.ppl), x.ppl)
	}
	fmt.Fprintf(w, "trained                    %.2f %% of the parameters\n", 100*r.TrainableShare)
	fmt.Fprintln(w, "on disk")
	var names []string
	for n := range r.Disk {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		fmt.Fprintf(w, "  %-36s %s\n", n, memory.FormatSize(r.Disk[n]))
	}
	fmt.Fprintf(w, "%.0f s, peak memory %s; everything is in %s, the loss curve in %s\n",
		r.Seconds, memory.FormatSize(r.PeakRSS), r.Dir, filepath.Join(r.Dir, "adapters", picturePNG))
}

// The demo's own settings: enough training for the text to change its style in
// about half a minute.
var (
	demoTrain = []string{
		"--iters", "200", "--batch-size", "4", "--grad-accumulation-steps", "2", "--max-seq-length", "128",
		"--rank", "8", "--alpha", "16", "--learning-rate", "1e-2", "--warmup-steps", "10",
		"--steps-per-eval", "50", "--steps-per-report", "20", "--save-every", "100",
	}
	demoPrompt = "First Citizen:\n"
)

func (a *app) demo(ctx context.Context, out string) error {
	start := time.Now()
	abs, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	if err := a.demoDir(abs); err != nil {
		return err
	}
	if err := demo.Write(abs); err != nil {
		return hint.Add(err, "choose another --out")
	}
	back, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := os.Chdir(abs); err != nil {
		return err
	}
	defer os.Chdir(back)

	d := &demoRun{app: a, ctx: ctx}
	d.note("$ cd %s", out)
	r := &demoResult{Dir: out, Prompt: demoPrompt}
	d.run("inspect", "stories260K")
	d.run("quantize", "stories260K", "stories260K-nf4", "--type", "nf4")
	eval := func(args ...string) float64 {
		d.run(slices.Concat([]string{"eval"}, args, []string{"--data", "shakespeare/valid.txt", "--max-seq-length", "128"})...)
		if e, ok := d.last().(*evalResult); ok {
			return e.Perplexity
		}
		return 0
	}
	r.Perplexity.F32 = eval("--model", "stories260K")
	r.Perplexity.NF4 = eval("--model", "stories260K-nf4")
	d.run(append([]string{"train", "--model", "stories260K-nf4", "--data", "shakespeare", "--output-dir", "adapters"}, demoTrain...)...)
	if t, ok := d.last().(*trainResult); ok {
		r.TrainableShare = t.TrainableShare
	}
	r.Perplexity.QLoRA = eval("--model", "stories260K-nf4", "--adapter", "adapters")
	d.run("merge", "--base", "stories260K-nf4", "--adapter", "adapters", "--out", "merged")
	r.Perplexity.Merged = eval("--model", "merged")
	d.run("convert", "merged", "merged.gguf", "--outtype", "f16")
	r.Before = d.generate("stories260K")
	r.After = d.generate("merged")
	if d.err != nil {
		return d.err
	}
	r.LossBefore, r.LossAfter = lossOf(r.Perplexity.NF4), lossOf(r.Perplexity.QLoRA)
	if !a.json {
		sideBySide(a.out, "stories260K", r.Before, "merged", r.After)
	}
	r.Disk = make(map[string]int64)
	for _, name := range []string{"stories260K", "stories260K-nf4", "adapters/adapter_model.safetensors", "merged", "merged.gguf"} {
		if r.Disk[name], err = diskSize(name); err != nil {
			return err
		}
	}
	r.Seconds, r.PeakRSS = time.Since(start).Seconds(), memory.PeakRSS()
	return a.print(r)
}

// demoDir makes an empty directory for the demo, removing an earlier demo's if
// --force allows it.
func (a *app) demoDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return hint.Add(err, "choose another --out")
	}
	if len(entries) > 0 {
		isDemo := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "stories260K" })
		if !a.force || !isDemo {
			return hint.Add(fmt.Errorf("%s: %w", dir, fsx.ErrExists), "choose another --out, or give --force to replace an earlier demo")
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return hint.Add(err, "choose an --out that you may write to")
	}
	return nil
}

// demoRun runs command lines one after another, until one fails.
type demoRun struct {
	*app
	ctx context.Context
	sub *app
	err error
}

// run prints a command line and carries it out.
func (d *demoRun) run(args ...string) { d.runTo(d.app.out, args...) }

func (d *demoRun) runTo(out io.Writer, args ...string) {
	if d.err != nil {
		return
	}
	d.note("\n$ nibble %s", commandLine(args))
	if d.json {
		out = io.Discard
	}
	d.sub = &app{out: out, err: d.app.err}
	if d.quiet {
		args = append(args, "--quiet")
	}
	if d.memory > 0 {
		args = append(args, "--memory", fmt.Sprint(int64(d.memory)))
	}
	d.err = d.sub.exec(d.ctx, args...)
}

func (d *demoRun) last() result {
	if d.err != nil || d.sub == nil {
		return nil
	}
	return d.sub.last
}

// generate returns what a model makes of the prompt.
func (d *demoRun) generate(model string) string {
	d.runTo(io.Discard, "generate", "--model", model, "--prompt", demoPrompt, "--max-tokens", "150", "--temperature", "0.7", "--seed", "1")
	if g, ok := d.last().(*generateResult); ok {
		return g.Prompt + g.Text
	}
	return ""
}

// commandLine writes arguments as a shell would read them.
func commandLine(args []string) string {
	quoted := slices.Clone(args)
	for i, s := range quoted {
		switch {
		case strings.ContainsAny(s, "\n"):
			quoted[i] = "$'" + strings.ReplaceAll(s, "\n", `\n`) + "'"
		case strings.ContainsAny(s, " \"$"):
			quoted[i] = "'" + s + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// sideBySide prints two texts in columns.
func sideBySide(w io.Writer, nameA, a, nameB, b string) {
	const width = 48
	left, right := wrap(a, width), wrap(b, width)
	fmt.Fprintf(w, "\n%-*s | %s\n%s-+-%s\n", width, nameA, nameB, strings.Repeat("-", width), strings.Repeat("-", width))
	for i := range max(len(left), len(right)) {
		var l, r string
		if i < len(left) {
			l = left[i]
		}
		if i < len(right) {
			r = right[i]
		}
		fmt.Fprintf(w, "%-*s | %s\n", width, l, r)
	}
}

// wrap breaks a text into lines of up to width characters, at spaces.
func wrap(text string, width int) []string {
	var out []string
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		current := ""
		for _, word := range strings.Fields(line) {
			if current != "" && len([]rune(current))+1+len([]rune(word)) > width {
				out, current = append(out, current), ""
			}
			if current != "" {
				current += " "
			}
			current += word
		}
		out = append(out, current)
	}
	return out
}

// lossOf is the cross-entropy of a perplexity.
func lossOf(ppl float64) float64 { return math.Log(ppl) }

// diskSize returns the bytes of a file, or of all files of a directory.
func diskSize(path string) (n int64, err error) {
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}
