package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/internal/chart"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/speed"
)

// A storiesMethod is a way to fine-tune the stories model.
type storiesMethod struct {
	name  string
	nf4   bool // the base
	args  []string
	first int // of learningRates, where the search begins
}

var storiesMethods = []storiesMethod{
	{"full", false, []string{"--fine-tune-type", "full"}, 2},
	{"LoRA, rank 64", false, []string{"--rank", "64", "--alpha", "64"}, 3},
	{"QLoRA, rank 64", true, []string{"--rank", "64", "--alpha", "64"}, 3},
	{"LoRA, rank 8", false, []string{"--rank", "8", "--alpha", "16"}, 4},
	{"QLoRA, rank 8", true, []string{"--rank", "8", "--alpha", "16"}, 4},
	// What full fine-tuning trains besides the linear layers.
	{"LoRA, rank 64, embeddings, norms", false, storiesWhole, 3},
	{"QLoRA, rank 64, embeddings, norms", true, storiesWhole, 3},
}

var storiesWhole = []string{"--rank", "64", "--alpha", "64", "--modules-to-save", "embed_tokens,norm"}

// learningRates are what each method is tuned over.
var learningRates = []string{"1e-3", "2e-3", "4e-3", "8e-3", "1.6e-2", "3.2e-2", "6.4e-2"}

// tuned is a method with what it came to on some data.
type tuned struct {
	storiesMethod
	runs   map[int]*trainRun // by learning rate, the one that begins with seed 0
	best   int               // of learningRates
	others []float64         // losses of the best with other seeds
}

// loss is the held-out loss at the end, NaN if there was no such run.
func (t *tuned) loss(rate int) float64 {
	if r := t.runs[rate]; r != nil {
		return r.evals()[len(r.evals())-1].Y
	}
	return math.NaN()
}

// evals are the held-out losses by step.
func (r *trainRun) evals() (list []chart.Point) {
	for _, s := range r.steps {
		if s.Eval != nil {
			list = append(list, chart.Point{X: float64(s.Step), Y: *s.Eval})
		}
	}
	return list
}

// stories fine-tunes the stories model in all ways, each at the learning rate that suits
// it best, on all data, and prints tables and draws pictures of how they compare.
func stories(ctx context.Context, o *options) error {
	if err := os.MkdirAll(o.dir, 0o777); err != nil {
		return err
	}
	base, quantized := o.tokenizer, filepath.Join(o.dir, "stories-nf4")
	if _, err := timed(o.nibble, "quantize", base, quantized, "--type", "nf4", "--quiet", "--force"); err != nil {
		return err
	}
	fmt.Printf("%s, %d processors; steps of 8 examples of 128 tokens (WikiSQL: 256), AdamW, 20 steps of warm-up, cosine; %d seeds at the best learning rate\n\n",
		speed.CPU(), runtime.GOMAXPROCS(0), o.runs)
	for _, data := range []struct{ name, path, length, steps string }{
		{"Shakespeare", "cmd/nibble/demo/shakespeare", "128", "200"},
		{"WikiSQL", o.wikisql, "256", "200"},
	} {
		if !strings.Contains(data.name, o.only) {
			continue
		}
		if data.path == "" {
			return hint.Add(errors.New("no -wikisql"), "the directory of mlx-lm's WikiSQL, train.jsonl and valid.jsonl (github.com/ml-explore/mlx-examples, lora/data), or -only Shakespeare")
		}
		var list []*tuned
		for _, m := range storiesMethods {
			model := base
			if m.nf4 {
				model = quantized
			}
			t, err := tune(m, o.runs, func(rate int, seed int) (*trainRun, error) {
				args := append([]string{"--model", model, "--data", data.path, "--output-dir", filepath.Join(o.dir, "out-stories"), "--iters", data.steps, "--max-seq-length", data.length,
					"--batch-size", "8", "--warmup-steps", "20", "--learning-rate", learningRates[rate], "--steps-per-eval", "25", "--val-batches", "-1", "--save-every", "0",
					"--seed", strconv.Itoa(seed)}, m.args...)
				r, err := o.train(ctx, 0, args...)
				if err == nil {
					fmt.Fprintf(os.Stderr, "%s, %s, %s, seed %d: %.4f in %.1f s\n", data.name, m.name, learningRates[rate], seed, r.evals()[len(r.evals())-1].Y, r.end.Seconds)
				}
				return r, errors.Join(err, os.RemoveAll(filepath.Join(o.dir, "out-stories")))
			})
			if err != nil {
				return fmt.Errorf("%s, %s: %w", data.name, m.name, err)
			}
			list = append(list, t)
		}
		printTuned(data.name, list)
		png, err := drawTuned(data.name, list)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join("docs", "stories-"+strings.ToLower(data.name)+".png"), png, 0o666); err != nil {
			return err
		}
	}
	return os.RemoveAll(quantized)
}

// tune goes from the learning rate that a method begins with to lower and higher ones, as
// long as the loss falls, and runs the best with more seeds.
func tune(m storiesMethod, seeds int, run func(rate, seed int) (*trainRun, error)) (*tuned, error) {
	t := &tuned{storiesMethod: m, runs: make(map[int]*trainRun), best: m.first}
	try := func(rate int) (better bool, err error) {
		if rate < 0 || rate >= len(learningRates) {
			return false, nil
		}
		if t.runs[rate], err = run(rate, 0); err != nil {
			return false, err
		}
		return t.loss(rate) < t.loss(t.best), nil
	}
	if _, err := try(m.first); err != nil {
		return nil, err
	}
	for _, by := range []int{1, -1} {
		if by < 0 && t.best != m.first {
			break // on the other side it is worse
		}
		for {
			better, err := try(t.best + by)
			if err != nil {
				return nil, err
			}
			if !better {
				break
			}
			t.best += by
		}
	}
	for seed := 1; seed < seeds; seed++ {
		r, err := run(t.best, seed)
		if err != nil {
			return nil, err
		}
		t.others = append(t.others, r.evals()[len(r.evals())-1].Y)
	}
	return t, nil
}

// mean returns the mean of the losses with all seeds, and half of how far they are apart.
func (t *tuned) mean() (mean, spread float64) {
	low, high := t.loss(t.best), t.loss(t.best)
	sum := low
	for _, x := range t.others {
		low, high, sum = min(low, x), max(high, x), sum+x
	}
	return sum / float64(1+len(t.others)), (high - low) / 2
}

// printTuned prints what all methods came to beside full fine-tuning, which is the first.
func printTuned(data string, list []*tuned) {
	fmt.Printf("| %s | learning rate | trained | held-out loss before | after | over full | peak RSS |\n|---|---|---|---|---|---|---|\n", data)
	full, _ := list[0].mean()
	for _, t := range list {
		r := t.runs[t.best]
		mean, spread := t.mean()
		fmt.Printf("| %s | %s | %d | %.4f | %.4f ± %.4f | %+.4f | %.1f MiB |\n", t.name, learningRates[t.best], r.end.Trainable, r.evals()[0].Y, mean, spread, mean-full, mib(r.peak))
	}
	fmt.Println()
}

// drawTuned draws the held-out losses by step, without that of before, which all others
// are far below, and beside them those at the end by learning rate.
func drawTuned(data string, list []*tuned) ([]byte, error) {
	var curves []chart.Curve
	grid := chart.Grid{Title: "at the end, by learning rate", X: "learning rate", Columns: learningRates}
	for _, t := range list {
		curves = append(curves, chart.Curve{Name: t.name + ", " + learningRates[t.best], Points: t.runs[t.best].evals()[1:]})
		values, texts := make([]float64, len(learningRates)), make([]string, len(learningRates))
		for i := range learningRates {
			if values[i] = t.loss(i); !math.IsNaN(values[i]) {
				texts[i] = fmt.Sprintf("%.3f", values[i])
			}
		}
		grid.Rows, grid.Values, grid.Texts = append(grid.Rows, t.name), append(grid.Values, values), append(grid.Texts, texts)
	}
	return chart.CurvesAndGrid("stories260K on "+data+", held-out loss", "step", "cross-entropy, nats per token", false, curves, grid, false)
}
