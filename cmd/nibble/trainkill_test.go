package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sameRun compares what two runs have left: the log but for the clock, what was trained,
// and the checkpoints.
func sameRun(t *testing.T, want, got string) {
	t.Helper()
	require.Equal(t, logWithoutTimes(t, filepath.Join(want, logName)), logWithoutTimes(t, filepath.Join(got, logName)))
	seen := 0
	for _, pattern := range []string{"*.safetensors", "checkpoint-*/*.safetensors", "checkpoint-*/trainer_state.json", "checkpoint-*/" + logName, ".*"} {
		files, err := filepath.Glob(filepath.Join(want, pattern))
		require.NoError(t, err)
		others, err := filepath.Glob(filepath.Join(got, pattern))
		require.NoError(t, err)
		require.Len(t, others, len(files), pattern)
		for i, f := range files {
			require.Equal(t, strings.TrimPrefix(f, want), strings.TrimPrefix(others[i], got))
			if filepath.Base(f) == logName {
				require.Equal(t, logWithoutTimes(t, f), logWithoutTimes(t, others[i]))
				continue
			}
			require.True(t, readFile(t, f) == readFile(t, others[i]), "%s differs in its bits", f)
			seen++
		}
	}
	require.Greater(t, seen, 6)
}

// TestKilledAtAnyMoment kills real runs, again and again, whatever they are at, and goes
// on from what is left: the end is that of a run that nothing happened to.
func TestKilledAtAnyMoment(t *testing.T) {
	for name, flags := range map[string][]string{
		"lora":              {"--optimizer", "adamw"},
		"lora watched":      {"--load-best-model-at-end", "--early-stopping-patience", "3", "--sample-prompt", "Once", "--sample-temperature", "0.8", "--export", "gguf:q8_0"},
		"lora paged":        {"--optimizer", "paged_adamw_32bit", "--dropout", "0.1"},
		"lora paged 8 bits": {"--optimizer", "paged_adamw_8bit", "--rank", "64"},
		"full paged":        {"--optimizer", "paged_adamw_32bit", "--fine-tune-type", "full"},
		"full 8 bits":       {"--optimizer", "adamw_8bit", "--fine-tune-type", "full", "--bf16-stochastic-round"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := workspace(t)
			rows(t, dir)
			args := func(out string, more ...string) []string {
				return append(trainIn(dir, out, append(flags, "--iters", "17", "--save-every", "4", "--steps-per-eval", "8", "--save-total-limit", "2")...), more...)
			}
			start := time.Now()
			ok(t, args("whole")...)
			took := time.Since(start)

			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d, a run takes %v", seed, took)
			rng := rand.New(rand.NewPCG(seed, 0))
			out := filepath.Join(dir, "out")
			kills := 0
			for done := false; !done; {
				next := args("out", "--force")
				if list, _ := savedIn(out); len(list) > 0 {
					next = args("out", "--resume", out)
				}
				cmd := exec.Command(binary, next...)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				require.NoError(t, cmd.Start())
				if kills < 4 {
					time.Sleep(time.Duration((0.1 + 0.5*rng.Float64()) * float64(took)))
					if cmd.Process.Kill() == nil {
						kills++
					}
				}
				if err := cmd.Wait(); err == nil {
					done = true
				} else {
					require.Equal(t, -1, cmd.ProcessState.ExitCode(), "killed, or %s", stderr.String())
				}
			}
			require.Positive(t, kills)
			sameRun(t, filepath.Join(dir, "whole"), out)
			list, err := savedIn(out)
			require.NoError(t, err)
			require.Len(t, list, 2)
			require.Equal(t, []int{16, 17}, []int{list[0].step, list[1].step})
			hidden, err := filepath.Glob(filepath.Join(dir, ".*"))
			require.NoError(t, err)
			require.Empty(t, hidden)
		})
	}
}

// SIGTERM finishes the step and saves, and a second signal ends the program at once.
func TestTerminatedTraining(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	out := filepath.Join(dir, "out")
	args := trainIn(dir, "out", "--iters", "100000", "--save-every", "0", "--steps-per-eval", "0")
	cmd := exec.Command(binary, args...)
	require.NoError(t, cmd.Start())
	running := func() bool {
		b, _ := os.ReadFile(filepath.Join(out, logName))
		return bytes.Count(b, []byte("\n")) > 3
	}
	require.Eventually(t, running, 30*time.Second, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait()
	require.Equal(t, exitInterrupted, cmd.ProcessState.ExitCode())
	list, err := savedIn(out)
	require.NoError(t, err)
	require.Len(t, list, 1, "the step is finished and saved")

	// One step with so many micro-batches takes minutes.
	cmd = exec.Command(binary, trainIn(dir, "long", "--grad-accumulation-steps", "20000", "--steps-per-eval", "0")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	time.Sleep(time.Second)
	for range 2 {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		time.Sleep(200 * time.Millisecond)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatal("the second signal was not heeded")
	}
	require.Equal(t, -1, cmd.ProcessState.ExitCode(), "%s", stderr.String())
}

// limited runs nibble with files bounded to so many KiB, as if the disk were full.
func limited(t *testing.T, kib string, args ...string) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("bash", append([]string{"-c", `ulimit -f "$0"; exec "$@"`, kib, binary}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run()
	return output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func TestDiskFullInTraining(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	run := func(out string, more ...string) []string {
		return trainIn(dir, out, append([]string{"--iters", "12", "--save-every", "4", "--steps-per-eval", "0"}, more...)...)
	}
	o := limited(t, "100", run("paged", "--optimizer", "paged_adamw_32bit")...)
	require.Equal(t, exitFailed, o.code, o.stderr)
	require.Contains(t, o.stderr, "setting aside")
	require.Contains(t, o.stderr, "hint: free space")
	require.NoDirExists(t, filepath.Join(dir, "paged"), "nothing is left behind")

	o = limited(t, "4", run("dry", "--dry-run")...)
	require.Equal(t, exitFailed, o.code, o.stderr)
	require.Contains(t, o.stderr, "hint: free space there")

	ok(t, run("whole")...)
	ok(t, run("out")...)
	for _, later := range []string{"out/checkpoint-8", "out/checkpoint-12"} {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, later)))
	}
	before := tensors(t, filepath.Join(dir, "out/checkpoint-4/"+optimizerName))
	o = limited(t, "100", run("out", "--resume", filepath.Join(dir, "out"))...)
	require.Equal(t, exitFailed, o.code, o.stderr)
	require.Contains(t, o.stderr, "file too large")
	list, err := savedIn(filepath.Join(dir, "out"))
	require.NoError(t, err)
	require.Len(t, list, 1, "half a checkpoint is none")
	require.Equal(t, before, tensors(t, filepath.Join(dir, "out/checkpoint-4/"+optimizerName)))
	ok(t, run("out", "--resume", filepath.Join(dir, "out"))...)
	sameRun(t, filepath.Join(dir, "whole"), filepath.Join(dir, "out"))
}
