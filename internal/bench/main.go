package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed18967229/nibble/internal/hint"
)

// options are the flags.
type options struct {
	nibble, dir, tokenizer string
	gb, ggufGB, peftGB     float64
	runs                   int
	only                   string
	python, llama          string

	// Of training.
	memory string
	steps  int
	keep   bool

	wikisql string
}

func main() {
	var o options
	flag.StringVar(&o.nibble, "nibble", "./nibble", "the built program")
	flag.StringVar(&o.dir, "dir", "nibble-bench", "where to work; needs about four times the size")
	flag.Float64Var(&o.gb, "gb", 8, "size of the checkpoint in GB")
	flag.Float64Var(&o.ggufGB, "gguf-gb", 2, "size in GB of the GGUF file that llama.cpp quantizes beside, and of what is merged with -merge but for the first case")
	flag.Float64Var(&o.peftGB, "peft-gb", 2, "size in GB of the checkpoint that PEFT merges into, in memory")
	flag.IntVar(&o.runs, "runs", 3, "runs of each case, interleaved")
	flag.StringVar(&o.only, "only", "", "the cases whose name contains this")
	flag.StringVar(&o.tokenizer, "tokenizer", "cmd/nibble/demo/stories260K", "a model directory with a SentencePiece tokenizer")
	flag.StringVar(&o.python, "python", "python3", "a Python; with -peers it needs bitsandbytes, with -merge PEFT")
	flag.StringVar(&o.llama, "llama", "", "the directory of llama.cpp's libraries")
	withPeers := flag.Bool("peers", false, "instead: products of matrices beside OpenBLAS and NF4 beside bitsandbytes, in -runs rounds of at least 7")
	quantizing := flag.Bool("quantize", false, "instead: quantize beside reading and writing, and beside llama.cpp")
	withMerge := flag.Bool("merge", false, "instead: merge beside copying, beside quantizing and beside PEFT; unmerge, extract")
	withTraining := flag.Bool("train", false, "instead: train over models of real shapes")
	flag.StringVar(&o.memory, "memory", "", "with -train, the budget in place of each case's own")
	flag.IntVar(&o.steps, "steps", 0, "with -train, the steps that are measured in place of each case's own")
	flag.BoolVar(&o.keep, "keep", false, "with -train, keep the models that were made")
	withStories := flag.Bool("stories", false, "instead: LoRA, QLoRA and full fine-tuning of the stories model, each tuned")
	flag.StringVar(&o.wikisql, "wikisql", "", "with -stories, a directory with WikiSQL's train.jsonl and valid.jsonl")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch {
	case *withPeers:
		err = peers(ctx, &o)
	case *quantizing:
		err = quantize(&o)
	case *withMerge:
		err = merging(&o)
	case *withTraining:
		err = training(ctx, &o)
	case *withStories:
		err = stories(ctx, &o)
	default:
		err = conversions(&o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		if h := hint.Of(err); h != "" {
			fmt.Fprintln(os.Stderr, "hint:", h)
		}
		os.Exit(1)
	}
}

// A benchmark is one conversion, and what cp is to copy beside it.
type benchmark struct {
	name     string
	in       string   // of the conversion
	args     []string // after convert IN OUT
	out      string
	baseline string // copied file by file
}

func conversions(o *options) error {
	model := filepath.Join(o.dir, "model")
	if err := llama3B.sized(o.gb).make(model, o.tokenizer); err != nil {
		return err
	}
	gguf := filepath.Join(o.dir, "model.gguf")
	out := func(name string) string { return filepath.Join(o.dir, "out-"+name) }
	list := []benchmark{
		{"safetensors -> GGUF bf16", model, []string{"--outtype", "bf16"}, out("bf16.gguf"), model},
		{"safetensors -> GGUF f16", model, []string{"--outtype", "f16"}, out("f16.gguf"), model},
		{"safetensors -> GGUF q8_0", model, []string{"--outtype", "q8_0"}, out("q8_0.gguf"), model},
		{"GGUF bf16 -> safetensors", gguf, nil, out("hf"), gguf},
		{"re-shard, 1 GB", model, []string{"--max-shard-size", "1GB"}, out("shards"), model},
		{"safetensors bf16 -> f16", model, []string{"--outtype", "f16"}, out("hf16"), model},
		{"split GGUF, 2 GB", gguf, []string{"--split-max-size", "2G"}, out("split.gguf"), gguf},
	}
	if err := o.toGGUF(model, gguf); err != nil {
		return err
	}
	fmt.Println("| conversion | time | cp + fsync | ratio | peak memory |")
	fmt.Println("|---|---|---|---|---|")
	for _, b := range list {
		if !strings.Contains(b.name, o.only) {
			continue
		}
		var ratios, times, copies []float64
		var peak int64
		for range o.runs {
			copied, err := copyAll(b.baseline, filepath.Join(o.dir, "copy"))
			if err != nil {
				return err
			}
			r, err := timed(o.nibble, append([]string{"convert", b.in, b.out, "--quiet", "--force"}, b.args...)...)
			if err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
			if err := remove(b.out); err != nil {
				return err
			}
			copies, times = append(copies, copied), append(times, r.seconds)
			ratios = append(ratios, r.seconds/copied)
			peak = max(peak, r.peak)
		}
		fmt.Printf("| %s | %.1f s | %.1f s | %.2f | %.0f MiB |\n", b.name, median(times), median(copies), median(ratios), float64(peak)/(1<<20))
	}
	return nil
}

// toGGUF converts a checkpoint to a GGUF file, if that is not there.
func (o *options) toGGUF(model, gguf string) error {
	if _, err := os.Stat(gguf); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err := timed(o.nibble, "convert", model, gguf, "--outtype", "bf16", "--quiet")
	return err
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

type result struct {
	seconds float64
	cpu     float64 // seconds of all processors
	peak    int64
}

// timed runs a command and returns what it took: from the start to the exit.
func timed(name string, args ...string) (result, error) { return timedTo(io.Discard, name, args...) }

// timedTo is timed with the command's output.
func timedTo(w io.Writer, name string, args ...string) (result, error) {
	settle()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	start := time.Now()
	err := cmd.Run()
	r := result{seconds: time.Since(start).Seconds()}
	if cmd.ProcessState != nil {
		r.cpu, r.peak = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), peakOf(cmd)
	}
	return r, err
}

// peakOf returns the peak resident set of a program that has ended.
func peakOf(cmd *exec.Cmd) int64 {
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		return int64(u.Maxrss) << 10
	}
	return 0
}

// settle has everything written and, where that is allowed, forgotten, so that
// each run begins alike.
func settle() {
	syscall.Sync()
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0)
	time.Sleep(time.Second)
}

// copyAll copies a file, or the files of a directory, with cp, and syncs the
// copies; it returns the seconds that took, and removes them.
func copyAll(from, to string) (float64, error) {
	settle()
	if err := os.MkdirAll(to, 0o777); err != nil {
		return 0, err
	}
	start := time.Now()
	cp := exec.Command("cp", "-r", "--", from, to)
	cp.Stderr = os.Stderr
	if err := cp.Run(); err != nil {
		return 0, err
	}
	err := filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
	seconds := time.Since(start).Seconds()
	return seconds, errors.Join(err, os.RemoveAll(to))
}

// remove removes an output, with the other parts if it was split.
func remove(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	parts, err := filepath.Glob(strings.TrimSuffix(path, ".gguf") + "-*-of-*.gguf")
	for _, p := range parts {
		err = errors.Join(err, os.Remove(p))
	}
	return err
}
