package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/internal/speed"
)

// mergeRank is the rank of the adapters that are merged.
const mergeRank = 64

// typicalSigma is the standard deviation of the elements of a delta, where it does not
// matter.
const typicalSigma = 1e-3

// merging measures what merge does, case by case.
func merging(o *options) error {
	fmt.Printf("%s, %d processors, medians of %d runs; adapters of rank %d of all linear layers\n\n", speed.CPU(), runtime.GOMAXPROCS(0), o.runs, mergeRank)
	for _, c := range []struct {
		name string
		run  func(o *options) error
	}{{"cp", mergeFiles}, {"one pass", onePass}, {"unmerge", unmergeFiles}, {"extract", extractFiles}, {"PEFT", besidePEFT}} {
		if !strings.Contains(c.name, o.only) {
			continue
		}
		if err := c.run(o); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// subject makes a model of about that size and an adapter for it.
func (o *options) subject(gb, sigma float64) (model, adapter string, err error) {
	s := llama7B.sized(gb)
	model = filepath.Join(o.dir, fmt.Sprintf("llama-7b-%ggb", gb))
	if err := s.make(model, o.tokenizer); err != nil {
		return "", "", err
	}
	adapter = filepath.Join(o.dir, fmt.Sprintf("lora-%d-%ggb-%g", mergeRank, gb, sigma))
	return model, adapter, s.makeAdapter(adapter, mergeRank, sigma)
}

// runs are the runs of one case.
type runs struct {
	times, cpus, ratios []float64
	peak                int64
}

// add takes a run into account, beside which something else took that many seconds.
func (r *runs) add(x result, beside float64) {
	r.times, r.cpus, r.ratios = append(r.times, x.seconds), append(r.cpus, x.cpu), append(r.ratios, x.seconds/beside)
	r.peak = max(r.peak, x.peak)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// mergeFiles merges into a checkpoint, and copies the checkpoint.
func mergeFiles(o *options) error {
	model, adapter, err := o.subject(o.gb, typicalSigma)
	if err != nil {
		return err
	}
	if err := room(o.dir, 1.1*o.gb); err != nil {
		return err
	}
	out := filepath.Join(o.dir, "out-merged")
	var merged runs
	var copies []float64
	for range o.runs {
		copied, err := copyAll(model, filepath.Join(o.dir, "copy"))
		if err != nil {
			return err
		}
		r, err := timed(o.nibble, "merge", "--base", model, "--adapter", adapter, "--out", out, "--quiet", "--force")
		if err := errors.Join(err, os.RemoveAll(out)); err != nil {
			return err
		}
		merged.add(r, copied)
		copies = append(copies, copied)
	}
	size, err := sizeOf(model)
	if err != nil {
		return err
	}
	fmt.Println("| merge | time | of processors | cp + fsync of the model | ratio | peak memory |")
	fmt.Println("|---|---|---|---|---|---|")
	fmt.Printf("| into %.1f GB of bf16 | %.1f s | %.1f s | %.1f s | %.2f | %.0f MiB |\n\n", float64(size)/1e9,
		median(merged.times), median(merged.cpus), median(copies), median(merged.ratios), mib(merged.peak))
	return nil
}

// onePass merges into a quantized GGUF file, and quantizes without merging.
func onePass(o *options) error {
	model, adapter, err := o.subject(o.ggufGB, typicalSigma)
	if err != nil {
		return err
	}
	if err := room(o.dir, 0.8*o.ggufGB); err != nil {
		return err
	}
	out := filepath.Join(o.dir, "out-merged.gguf")
	const typ = "q4_k_m"
	var merged, alone runs
	for range o.runs {
		q, err := timed(o.nibble, "quantize", model, out, "--type", typ, "--quiet", "--force")
		if err != nil {
			return err
		}
		r, err := timed(o.nibble, "merge", "--base", model, "--adapter", adapter, "--out", out, "--quantize", typ, "--quiet", "--force")
		if err != nil {
			return err
		}
		alone.add(q, q.seconds)
		merged.add(r, q.seconds)
	}
	if err := os.Remove(out); err != nil {
		return err
	}
	fmt.Println("| to " + typ + " | time | of processors | peak memory | ratio |")
	fmt.Println("|---|---|---|---|---|")
	for _, line := range []struct {
		name string
		of   runs
	}{{"quantize", alone}, {"merge and quantize in one pass", merged}} {
		fmt.Printf("| %s %.1f GB | %.1f s | %.1f s | %.0f MiB | %.2f |\n", line.name, o.ggufGB,
			median(line.of.times), median(line.of.cpus), mib(line.of.peak), median(line.of.ratios))
	}
	fmt.Println()
	return nil
}

// sigmas are the deltas that receipts are measured with.
var sigmas = []float64{1e-4, 1e-3, 1e-2}

// unmergeFiles merges with a receipt and takes the adapter out again.
func unmergeFiles(o *options) error {
	fmt.Println("| standard deviation of the delta | receipt | of the model | merge with it | exact unmerge | cp + fsync of the model | ratio of unmerge | peak memory |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, sigma := range sigmas {
		model, adapter, err := o.subject(o.ggufGB, sigma)
		if err != nil {
			return err
		}
		if err := room(o.dir, 3*o.ggufGB); err != nil {
			return err
		}
		out, back, receipt := filepath.Join(o.dir, "out-merged"), filepath.Join(o.dir, "out-unmerged"), filepath.Join(o.dir, "merge.receipt")
		var merged, restored runs
		var copies []float64
		var bytes int64
		for range o.runs {
			copied, err := copyAll(model, filepath.Join(o.dir, "copy"))
			if err != nil {
				return err
			}
			r, err := timed(o.nibble, "merge", "--base", model, "--adapter", adapter, "--out", out, "--receipt", receipt, "--quiet", "--force")
			if err != nil {
				return err
			}
			merged.add(r, copied)
			if r, err = timed(o.nibble, "unmerge", out, "--receipt", receipt, "--out", back, "--quiet", "--force"); err != nil {
				return err
			}
			restored.add(r, copied)
			copies = append(copies, copied)
			st, err := os.Stat(receipt)
			if err != nil {
				return err
			}
			bytes = st.Size()
			if err := errors.Join(same(model, back), os.RemoveAll(out), os.RemoveAll(back), os.Remove(receipt)); err != nil {
				return err
			}
		}
		size, err := sizeOf(model)
		if err != nil {
			return err
		}
		fmt.Printf("| %g | %.1f MB | %.1f %% | %.1f s | %.1f s | %.1f s | %.2f | %.0f MiB |\n", sigma, float64(bytes)/1e6, 100*float64(bytes)/float64(size),
			median(merged.times), median(restored.times), median(copies), median(restored.ratios), mib(max(merged.peak, restored.peak)))
	}
	fmt.Println()
	return nil
}

// same returns an error unless both directories have the same weights, file by file.
func same(a, b string) error {
	paths, err := filepath.Glob(filepath.Join(a, "*.safetensors"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		if text, err := exec.Command("cmp", path, filepath.Join(b, filepath.Base(path))).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, text)
		}
	}
	return nil
}

// extractFiles makes an adapter of what a merge changed.
func extractFiles(o *options) error {
	model, adapter, err := o.subject(o.ggufGB, typicalSigma)
	if err != nil {
		return err
	}
	if err := room(o.dir, 1.5*o.ggufGB); err != nil {
		return err
	}
	out, extracted := filepath.Join(o.dir, "out-merged"), filepath.Join(o.dir, "out-extracted")
	if _, err := timed(o.nibble, "merge", "--base", model, "--adapter", adapter, "--out", out, "--quiet", "--force"); err != nil {
		return err
	}
	var all runs
	for range o.runs {
		r, err := timed(o.nibble, "adapter", "extract", "--base", model, "--model", out, "--out", extracted, "--rank", strconv.Itoa(mergeRank), "--quiet", "--force")
		if err := errors.Join(err, os.RemoveAll(extracted)); err != nil {
			return err
		}
		all.add(r, 1)
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	fmt.Println("| adapter extract | time | of processors | peak memory |")
	fmt.Println("|---|---|---|---|")
	fmt.Printf("| rank %d of %.1f GB | %.1f s | %.1f s | %.0f MiB |\n\n", mergeRank, o.ggufGB, median(all.times), median(all.cpus), mib(all.peak))
	return nil
}

// besidePEFT merges by nibble and by PEFT in turn, and compares what they made. PEFT
// has the model in memory.
func besidePEFT(o *options) error {
	model, adapter, err := o.subject(o.peftGB, typicalSigma)
	if err != nil {
		return err
	}
	if err := room(o.dir, 2.2*o.peftGB); err != nil {
		return err
	}
	ours, theirs := filepath.Join(o.dir, "out-merged"), filepath.Join(o.dir, "out-peft")
	var nibble, peft runs
	var calls []float64
	var answer peftRun
	for range o.runs {
		r, err := timed(o.nibble, "merge", "--base", model, "--adapter", adapter, "--out", ours, "--quiet", "--force")
		if err != nil {
			return err
		}
		settle()
		var p result
		if p, answer, err = mergePEFT(o, model, adapter, theirs, ours); err != nil {
			return err
		}
		nibble.add(r, r.seconds)
		peft.add(p, r.seconds)
		calls = append(calls, answer.seconds)
		if err := errors.Join(os.RemoveAll(ours), os.RemoveAll(theirs)); err != nil {
			return err
		}
	}
	fmt.Printf("%s\n\n| merge into %.1f GB of bf16 | time | without starting Python | of processors | peak memory | ratio |\n|---|---|---|---|---|---|\n", answer.version, o.peftGB)
	fmt.Printf("| nibble | %.1f s | | %.1f s | %.0f MiB | 1 |\n", median(nibble.times), median(nibble.cpus), mib(nibble.peak))
	fmt.Printf("| PEFT: from_pretrained, merge_and_unload, save_pretrained | %.1f s | %.1f s | %.1f s | %.0f MiB | %.2f |\n\n",
		median(peft.times), median(calls), median(peft.cpus), mib(peft.peak), median(peft.ratios))
	fmt.Printf("%s\n\n", answer.difference)
	return nil
}

// peftRun is what a run of PEFT says of itself.
type peftRun struct {
	seconds             float64 // without the imports
	version, difference string
}

func mergePEFT(o *options, model, adapter, out, beside string) (result, peftRun, error) {
	text, r, err := output(o.python, "internal/bench/peers/peft_merge.py", model, adapter, out)
	if err != nil {
		return r, peftRun{}, err
	}
	var p peftRun
	first, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if p.seconds, err = strconv.ParseFloat(first, 64); err != nil {
		return r, p, err
	}
	p.version = rest
	p.difference, _, err = output(o.python, "internal/bench/peers/peft_merge.py", "--compare", out, beside)
	return r, p, err
}

// output runs a program and returns what it prints.
func output(name string, args ...string) (string, result, error) {
	var text strings.Builder
	r, err := timedTo(&text, name, args...)
	return text.String(), r, err
}
