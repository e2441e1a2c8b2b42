package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/speed"
)

// quantize measures quantizing file to file: to NF4 beside reading the input and
// writing the output, and to GGUF types beside llama.cpp.
func quantize(o *options) error {
	fmt.Printf("%s, %d processors, medians of %d runs\n\n", speed.CPU(), runtime.GOMAXPROCS(0), o.runs)
	if strings.Contains("NF4", o.only) {
		if err := nf4Files(o); err != nil {
			return err
		}
	}
	return llamaCpp(o)
}

// nf4Files quantizes a checkpoint to NF4. Each run reads the input and writes a copy of
// the output beside it, cold.
func nf4Files(o *options) error {
	model, out := filepath.Join(o.dir, fmt.Sprintf("llama-7b-%ggb", o.gb)), filepath.Join(o.dir, "out-nf4")
	if err := llama7B.sized(o.gb).make(model, o.tokenizer); err != nil {
		return err
	}
	// The output takes a quarter and a bit, embeddings and head as they are, and so does
	// its copy.
	if err := room(o.dir, 2*(0.26*o.gb+0.55)); err != nil {
		return err
	}
	size, err := sizeOf(model)
	if err != nil {
		return err
	}
	var reads, writes, times, ratios []float64
	var peak, written int64
	for range o.runs {
		read, err := readAll(model)
		if err != nil {
			return err
		}
		r, err := timed(o.nibble, "quantize", model, out, "--type", "nf4", "--quiet", "--force")
		if err != nil {
			return err
		}
		if written, err = sizeOf(out); err != nil {
			return err
		}
		wrote, err := copyAll(out, filepath.Join(o.dir, "copy"))
		if err := errors.Join(err, os.RemoveAll(out)); err != nil {
			return err
		}
		reads, writes, times = append(reads, read), append(writes, wrote), append(times, r.seconds)
		ratios = append(ratios, r.seconds/max(read, wrote))
		peak = max(peak, r.peak)
	}
	fmt.Println("| to NF4 | time | reading the input (dd) | writing the output (cp + fsync) | ratio to the slower | peak memory |")
	fmt.Println("|---|---|---|---|---|---|")
	fmt.Printf("| %.1f GB to %.1f GB | %.1f s | %.1f s | %.1f s | %.2f | %.0f MiB |\n\n", float64(size)/1e9, float64(written)/1e9,
		median(times), median(reads), median(writes), median(ratios), float64(peak)/(1<<20))
	return nil
}

// The GGUF types that are measured, and the numbers llama.cpp has for them (llama.h, enum
// llama_ftype).
var ggufTypes = []struct {
	name  string
	ftype int
}{{"q4_k_m", 15}, {"q6_k", 18}, {"q8_0", 7}}

// llamaCpp quantizes a GGUF file by nibble and by llama.cpp in turn, on all processors,
// and compares the bytes.
func llamaCpp(o *options) error {
	gguf := filepath.Join(o.dir, fmt.Sprintf("llama-7b-%ggb.gguf", o.ggufGB))
	ours, theirs := filepath.Join(o.dir, "ours.gguf"), filepath.Join(o.dir, "theirs.gguf")
	var lines []string
	for _, t := range ggufTypes {
		if !strings.Contains(t.name, o.only) {
			continue
		}
		if o.llama == "" {
			return hint.Add(errors.New("no -llama, the directory of llama.cpp's libraries"), "make bench-quantize gets them; -only NF4 does without")
		}
		if lines == nil {
			if err := ggufInput(o, gguf); err != nil {
				return err
			}
		}
		line, err := beside(o, gguf, ours, theirs, t.name, t.ftype)
		if err := errors.Join(err, os.RemoveAll(ours), os.RemoveAll(theirs)); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		lines = append(lines, line)
	}
	if lines == nil {
		return nil
	}
	fmt.Println("| to GGUF | nibble (with fsync) | peak memory | llama_model_quantize | with fsync | peak memory | ratio | to that with fsync | same bytes |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")
	fmt.Println(strings.Join(lines, "\n"))
	return nil
}

// ggufInput makes the file to be quantized.
func ggufInput(o *options, gguf string) error {
	model := filepath.Join(o.dir, fmt.Sprintf("llama-7b-%ggb", o.ggufGB))
	if err := llama7B.sized(o.ggufGB).make(model, o.tokenizer); err != nil {
		return err
	}
	// The file itself, and two of at most a bit more than half its size.
	if err := room(o.dir, 2.2*o.ggufGB); err != nil {
		return err
	}
	return o.toGGUF(model, gguf)
}

// beside quantizes to one type and returns its line of the table.
func beside(o *options, gguf, ours, theirs, typ string, ftype int) (string, error) {
	var times, calls, synced, ratios, syncedRatios []float64
	var peak, peerPeak int64
	same := "yes"
	for range o.runs {
		r, err := timed(o.nibble, "quantize", gguf, ours, "--type", typ, "--quiet", "--force")
		if err != nil {
			return "", err
		}
		settle()
		p, err := llamaQuantize(o, gguf, theirs, ftype)
		if err != nil {
			return "", err
		}
		if out, err := exec.Command("cmp", ours, theirs).CombinedOutput(); err != nil {
			same = "no"
			fmt.Fprintf(os.Stderr, "%s: %s", typ, out)
		}
		times, calls, synced = append(times, r.seconds), append(calls, p.call), append(synced, p.synced)
		ratios, syncedRatios = append(ratios, p.call/r.seconds), append(syncedRatios, p.synced/r.seconds)
		peak, peerPeak = max(peak, r.peak), max(peerPeak, p.peak)
	}
	return fmt.Sprintf("| %s | %.1f s | %.0f MiB | %.1f s | %.1f s | %.0f MiB | %.2f | %.2f | %s |", typ, median(times), mib(peak),
		median(calls), median(synced), mib(peerPeak), median(ratios), median(syncedRatios), same), nil
}

// peerRun is what a run of llama.cpp took.
type peerRun struct {
	call, synced float64 // seconds, without the start of the program
	peak         int64
}

func llamaQuantize(o *options, in, out string, ftype int) (r peerRun, err error) {
	cmd := exec.Command(o.python, "internal/bench/peers/llama_quantize.py", o.llama, in, out, strconv.Itoa(ftype), strconv.Itoa(runtime.GOMAXPROCS(0)))
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return r, err
	}
	r.peak = peakOf(cmd)
	_, err = fmt.Fscan(bytes.NewReader(text), &r.call, &r.synced)
	return r, err
}

// readAll reads the files of a directory with dd, cold, and returns the seconds that
// took.
func readAll(dir string) (float64, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return 0, err
	}
	r, err := timed("sh", append([]string{"-c", `for f; do dd if="$f" of=/dev/null bs=4M status=none || exit; done`, "sh"}, paths...)...)
	return r.seconds, err
}

// sizeOf returns the size of a directory's files.
func sizeOf(dir string) (n int64, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return 0, err
		}
		n += info.Size()
	}
	return n, err
}

// room returns an error unless that many GB are free where dir is.
func room(dir string, gb float64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return err
	}
	if free := float64(s.Bavail) * float64(s.Bsize) / 1e9; free < gb {
		return hint.Add(fmt.Errorf("%s: %.1f GB are free, and this takes %.1f", dir, free, gb), "a smaller size with -gb and -gguf-gb, or another -dir")
	}
	return nil
}
