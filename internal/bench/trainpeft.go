package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// peftVariants are the ways to train by PyTorch and PEFT on a CPU, of which the fastest
// counts.
var peftVariants = []struct {
	name string
	args []string
}{
	{"float32", []string{"float32"}},
	{"float32, gradient checkpointing", []string{"float32", "checkpointing"}},
	{"bfloat16", []string{"bfloat16"}},
	{"bfloat16, gradient checkpointing", []string{"bfloat16", "checkpointing"}},
}

// besidePEFT trains the same model on the same data by PEFT, and prints how nibble's run
// compares with each way to do that.
func (c trainCase) besidePEFT(ctx context.Context, o *options, model, data string, tokens float64, ours *trainRun) error {
	var lines []string
	version := ""
	for _, v := range peftVariants {
		settle()
		p, err := c.peft(ctx, o, model, data, v.args)
		if err != nil {
			return fmt.Errorf("PEFT, %s: %w", v.name, err)
		}
		version = p.version
		rate := float64(trainTokens*c.batch*c.micro) / p.seconds
		lines = append(lines, fmt.Sprintf("| PEFT, %s | %.0f | %.0f MiB | %.4f | %.2f | %.3f |", v.name, rate, mib(p.peak), p.loss, tokens/rate, float64(ours.peak)/float64(p.peak)))
	}
	fmt.Printf("%s\n\n| | tokens/s | peak RSS | loss of the first step | nibble's tokens/s over it | nibble's peak over it |\n|---|---|---|---|---|---|\n", version)
	fmt.Printf("| nibble, %s | %.0f | %.0f MiB | %.4f | 1 | 1 |\n%s\n\n", c.model, tokens, mib(ours.peak), ours.steps[0].Loss, strings.Join(lines, "\n"))
	return nil
}

// peftTraining is what a run of PEFT did.
type peftTraining struct {
	version string
	seconds float64 // a step, the median of those after the first
	loss    float64 // of the first
	peak    int64
}

func (c trainCase) peft(ctx context.Context, o *options, model, data string, variant []string) (*peftTraining, error) {
	args := append([]string{"internal/bench/peers/peft_train.py", model, data, strconv.Itoa(trainTokens), strconv.Itoa(1 + max(3, c.measured)),
		strconv.Itoa(c.rank), strconv.Itoa(c.alpha)}, variant...)
	cmd := exec.CommandContext(ctx, o.python, append([]string{"-W", "ignore"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	watch := watchPeak(cmd.Process.Pid)
	var p peftTraining
	var seconds []float64
	s := bufio.NewScanner(out)
	if s.Scan() {
		p.version = s.Text()
	}
	for s.Scan() {
		var took, loss float64
		if _, err := fmt.Sscan(s.Text(), &took, &loss); err != nil {
			return nil, errors.Join(fmt.Errorf("%q: %w", s.Text(), err), cmd.Process.Kill(), cmd.Wait())
		}
		if len(seconds) == 0 {
			p.loss = loss
		}
		seconds = append(seconds, took)
	}
	p.peak = watch()
	if err := errors.Join(s.Err(), cmd.Wait()); err != nil {
		return nil, err
	}
	if len(seconds) < 2 {
		return nil, fmt.Errorf("%d steps, want 2 or more", len(seconds))
	}
	p.seconds = median(seconds[1:])
	return &p, nil
}
