package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// trainStep is what nibble train --json says of a step, and what the system said of the
// process when it did.
type trainStep struct {
	Step    int      `json:"step"`
	Loss    float64  `json:"loss"`
	Eval    *float64 `json:"eval_loss"`
	Tokens  int64    `json:"num_tokens"`
	Elapsed float64  `json:"elapsed"`

	// asked is what the process has read by read calls so far, disk what the disk gave
	// for it.
	asked, disk int64
}

// trainEnd is what it says at the end.
type trainEnd struct {
	OutputDir string  `json:"output_dir"`
	Steps     int     `json:"steps"`
	Trainable int64   `json:"trainable_parameters"`
	Seconds   float64 `json:"seconds"`
	DiskWait  float64 `json:"disk_wait_seconds"`
	Planned   int64   `json:"planned_memory"`
	PeakRSS   int64   `json:"peak_rss"`
}

// trainRun is a run of nibble train as it was seen from outside.
type trainRun struct {
	steps []trainStep
	end   trainEnd
	peak  int64 // resident set
}

// train runs nibble train with more arguments. With a limit the process may not map
// more private writable memory than that (RLIMIT_DATA): all that is not the program
// itself, be it touched or not.
func (o *options) train(ctx context.Context, limit int64, args ...string) (*trainRun, error) {
	args = append([]string{o.nibble, "train", "--json", "--quiet", "--force"}, args...)
	if limit > 0 {
		args = append([]string{"prlimit", "--data=" + strconv.FormatInt(limit, 10), "--"}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	// The first interrupt lets it finish its step.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := new(trainRun)
	watch := watchPeak(cmd.Process.Pid)
	err = r.follow(out, cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
	}
	r.peak = watch()
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	if r.end.Steps == 0 || len(r.steps) == 0 {
		return nil, fmt.Errorf("%s: it did not say what it did", strings.Join(args, " "))
	}
	r.peak = max(r.peak, r.end.PeakRSS)
	return r, nil
}

// follow reads what the process says, until its end.
func (r *trainRun) follow(out io.Reader, pid int) error {
	for d := json.NewDecoder(out); ; {
		var said struct {
			trainStep
			trainEnd
			Last *int `json:"steps"`
		}
		if err := d.Decode(&said); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if said.Last != nil {
			said.trainEnd.Steps = *said.Last
			r.end = said.trainEnd
			continue
		}
		s := said.trainStep
		s.asked, s.disk = procIO(pid)
		r.steps = append(r.steps, s)
	}
}

// watchPeak looks at the peak resident set of a process (VmHWM) while it lives. The
// function that it returns ends that and gives the last value.
func watchPeak(pid int) func() int64 {
	var peak int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			if n := procField(fmt.Sprintf("/proc/%d/status", pid), "VmHWM") << 10; n > 0 {
				peak = n
			}
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return func() int64 {
		close(done)
		wg.Wait()
		return peak
	}
}

// procIO returns how many bytes a process has read by calls, and how many the disk gave.
func procIO(pid int) (asked, disk int64) {
	path := fmt.Sprintf("/proc/%d/io", pid)
	return procField(path, "rchar"), procField(path, "read_bytes")
}

// procField returns the number in a line "name: number" of a file, 0 if there is none.
func procField(path, name string) int64 {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}

// steady is what a run did in the steps after the first warm ones, per step.
type steady struct {
	steps       int
	seconds     float64
	tokens      float64
	asked, disk float64
}

func (r *trainRun) steady(warm int) (steady, error) {
	var from trainStep
	list := r.steps
	for len(list) > 0 && list[0].Step <= warm {
		from, list = list[0], list[1:]
	}
	if len(list) == 0 {
		return steady{}, fmt.Errorf("no step after %d to measure", warm)
	}
	last, n := list[len(list)-1], float64(len(list))
	return steady{
		steps: len(list), seconds: (last.Elapsed - from.Elapsed) / n, tokens: float64(last.Tokens-from.Tokens) / n,
		asked: float64(last.asked-from.asked) / n, disk: float64(last.disk-from.disk) / n,
	}, nil
}
