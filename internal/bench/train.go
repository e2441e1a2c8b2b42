package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/speed"
)

// A trainCase is one run of nibble train over a model of real shape.
type trainCase struct {
	name, model    string
	rank, alpha    int
	batch, micro   int    // examples of a micro-batch, micro-batches of a step
	memory         string // --memory
	limited        bool   // the system gives the process no more than that and a tenth
	warm, measured int    // steps
	peers          bool   // PyTorch and PEFT beside it
}

// trainTokens is how many tokens of an example go through the model, each with a label.
const trainTokens = 512

// trainCases are those of the table in BENCHMARKS.md.
var trainCases = []trainCase{
	{name: "7b-r16", model: "llama-7b-nf4", rank: 16, alpha: 32, batch: 1, micro: 1, memory: "1GiB", warm: 1, measured: 2},
	{name: "7b-limit", model: "llama-7b-nf4", rank: 16, alpha: 32, batch: 1, micro: 1, memory: "1GiB", limited: true, warm: 1, measured: 1},
	{name: "7b-r256", model: "llama-7b-nf4", rank: 256, alpha: 512, batch: 1, micro: 1, memory: "1536MiB", warm: 1, measured: 2},
	{name: "7b-8gib", model: "llama-7b-nf4", rank: 16, alpha: 32, batch: 1, micro: 1, memory: "8GiB", warm: 1, measured: 2},
	{name: "7b-4gib", model: "llama-7b-nf4", rank: 16, alpha: 32, batch: 1, micro: 1, memory: "4GiB", warm: 1, measured: 2},
	{name: "7b-2gib", model: "llama-7b-nf4", rank: 16, alpha: 32, batch: 1, micro: 1, memory: "2GiB", warm: 1, measured: 2},
	{name: "7b-1gib", model: "llama-7b-nf4", rank: 16, alpha: 32, batch: 1, micro: 1, memory: "1GiB", warm: 1, measured: 2},
	{name: "7b-k1", model: "llama-7b-nf4", rank: 16, alpha: 32, batch: 1, micro: 1, memory: "1536MiB", measured: 1},
	{name: "7b-k2", model: "llama-7b-nf4", rank: 16, alpha: 32, batch: 1, micro: 2, memory: "1536MiB", measured: 1},
	{name: "7b-k4", model: "llama-7b-nf4", rank: 16, alpha: 32, batch: 1, micro: 4, memory: "1536MiB", measured: 1},
	{name: "7b-k8", model: "llama-7b-nf4", rank: 16, alpha: 32, batch: 1, micro: 8, memory: "2GiB", measured: 1},
	{name: "qwen-nf4", model: "qwen-0.5b-nf4", rank: 16, alpha: 32, batch: 4, micro: 1, memory: "2GiB", warm: 1, measured: 3},
	{name: "qwen-bf16", model: "qwen-0.5b", rank: 16, alpha: 32, batch: 4, micro: 1, memory: "2GiB", warm: 1, measured: 3, peers: true},
	{name: "65b-r16", model: "llama-65b-nf4", rank: 16, alpha: 32, batch: 1, micro: 1, memory: "2GiB", measured: 1},
	{name: "65b-r64", model: "llama-65b-nf4", rank: 64, alpha: 128, batch: 1, micro: 1, memory: "2GiB", measured: 1},
}

// tinyCases try the driver, in seconds; they are not of the table.
var tinyCases = []trainCase{
	{name: "tiny-nf4", model: "tiny-nf4", rank: 16, alpha: 32, batch: 1, micro: 2, memory: "256MiB", limited: true, warm: 1, measured: 3},
	{name: "tiny", model: "tiny", rank: 16, alpha: 32, batch: 4, micro: 1, memory: "256MiB", warm: 1, measured: 3, peers: true},
}

// training runs the cases whose names -only begins, several with commas between; all if
// there is none. A model is made when its first case runs and removed after its last.
func training(ctx context.Context, o *options) error {
	var list []trainCase
	for i, c := range slices.Concat(trainCases, tinyCases) {
		wanted := o.only == "" && i < len(trainCases)
		for _, name := range strings.Split(o.only, ",") {
			wanted = wanted || name != "" && strings.HasPrefix(c.name, name)
		}
		if !wanted {
			continue
		}
		if o.memory != "" {
			c.memory = o.memory
		}
		if o.steps > 0 {
			c.measured = o.steps
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return hint.Add(fmt.Errorf("-only %q: no case", o.only), "they begin with 7b-r16, 7b-r256, 7b-limit, 7b-8gib, 7b-k1, qwen, 65b ...")
	}
	if err := os.MkdirAll(o.dir, 0o777); err != nil {
		return err
	}
	fmt.Printf("%s, %d processors; LoRA on all linear layers, AdamW, %d tokens an example\n\n", speed.CPU(), runtime.GOMAXPROCS(0), trainTokens)
	for i, c := range list {
		if err := c.run(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		again := slices.ContainsFunc(list[i+1:], func(d trainCase) bool { return d.model == c.model })
		if !o.keep && !again {
			if err := os.RemoveAll(filepath.Join(o.dir, c.model)); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeExamples writes n lines of JSON with more text each than examples have room for,
// so that all are cut at the same length.
func writeExamples(path string, n int) error {
	text, err := os.ReadFile("cmd/nibble/demo/shakespeare/train.txt")
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	// The tokens of stories260K have less than four characters in the mean.
	const length = 4 * (trainTokens + 1)
	e := json.NewEncoder(f)
	for i := 0; i < n && err == nil; i++ {
		err = e.Encode(map[string]string{"text": string(text[i*length : (i+1)*length])})
	}
	return errors.Join(err, f.Close())
}

// multiplyAdds returns the rates of the machine's multiply-adds now, on all processors.
func multiplyAdds(ctx context.Context) (speed.Rates, error) {
	variant, err := kernel.Variant()
	if err != nil {
		return nil, err
	}
	r, err := speed.Rounds(ctx, []speed.Case{speed.MultiplyAdds(variant, runtime.GOMAXPROCS(0))}, 15, func() {})
	if err != nil {
		return nil, err
	}
	return r[0], nil
}

// run makes the model if it must, runs the case and prints its table.
func (c trainCase) run(ctx context.Context, o *options) error {
	t := trainees[c.model]
	m, _, err := t.model()
	if err != nil {
		return err
	}
	model := filepath.Join(o.dir, c.model)
	if err := t.make(ctx, model, o.tokenizer); err != nil {
		return err
	}
	// Every step is over the same examples.
	data := filepath.Join(o.dir, "train.jsonl")
	if err := writeExamples(data, c.batch*c.micro); err != nil {
		return err
	}
	budget, err := memory.ParseSize(c.memory)
	if err != nil {
		return err
	}
	var limit int64
	if c.limited {
		limit = budget + budget/10
	}
	settle()
	before, err := multiplyAdds(ctx)
	if err != nil {
		return err
	}
	out := filepath.Join(o.dir, "out-train")
	r, err := o.train(ctx, limit, "--model", model, "--data", data, "--output-dir", out, "--memory", c.memory,
		"--rank", strconv.Itoa(c.rank), "--alpha", strconv.Itoa(c.alpha), "--batch-size", strconv.Itoa(c.batch), "--grad-accumulation-steps", strconv.Itoa(c.micro),
		"--max-seq-length", strconv.Itoa(trainTokens+1), "--iters", strconv.Itoa(c.warm+c.measured), "--save-every", "0", "--warmup-steps", "0", "--learning-rate", "1e-4")
	if err := errors.Join(err, os.RemoveAll(out)); err != nil {
		return err
	}
	after, err := multiplyAdds(ctx)
	if err != nil {
		return err
	}
	s, err := r.steady(c.warm)
	if err != nil {
		return err
	}
	if want := float64(trainTokens * c.batch * c.micro); s.tokens != want {
		return fmt.Errorf("a step had %g tokens, want %g", s.tokens, want)
	}

	params := multiplied(m)
	useful := 4 * float64(params) * s.tokens / s.seconds
	peak := slices.Concat(before, after).Median()
	fmt.Printf("%s: rank %d, alpha %d, batch %d x %d; %.4g million parameters multiply activations, %.4g million are trained; %d of %d steps measured; loss %.4f -> %.4f\n\n",
		c.name, c.rank, c.alpha, c.batch, c.micro, float64(params)/1e6, float64(r.end.Trainable)/1e6, s.steps, r.end.Steps, r.steps[0].Loss, r.steps[len(r.steps)-1].Loss)
	fmt.Println("| run | budget | planned | peak RSS | s a step | tokens/s | useful GFLOP/s | multiply-adds before, after | share | disk wait | read a step | from disk |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|---|---|")
	within := ""
	if c.limited {
		within = fmt.Sprintf(" (RLIMIT_DATA %.0f MiB, mapped %.0f MiB)", mib(limit), mib(r.mapped))
	}
	fmt.Printf("| %s | %s%s | %.0f MiB | %.0f MiB | %.2f | %.4g | %.0f | %.0f, %.0f | %.1f %% | %.2f %% | %.3f GB | %.3f GB |\n\n", c.name, c.memory, within, mib(r.end.Planned), mib(r.peak),
		s.seconds, s.tokens/s.seconds, useful/1e9, before.Median()/1e9, after.Median()/1e9, 100*useful/peak, 100*r.end.DiskWait/r.end.Seconds, s.asked/1e9, s.disk/1e9)
	if !c.peers {
		return nil
	}
	return c.besidePEFT(ctx, o, model, data, s.tokens/s.seconds, r)
}
