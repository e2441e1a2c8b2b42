package main

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/speed"
)

// find returns the rates of a section with that name.
func (r *benchResult) find(section, name string) []benchRate {
	var out []benchRate
	for _, x := range r.Rates {
		if x.Section == section && x.Name == name {
			out = append(out, x)
		}
	}
	return out
}

func TestBench(t *testing.T) {
	dir := t.TempDir()
	var r benchResult
	okJSON(t, &r, "bench", "--runs", "2", "--threads", "2", "--only", "fma,memory,disk,convert,nf4", "--memory", "8MiB", "--disk-size", "5MiB", "--dir", dir)
	require.NotEmpty(t, r.CPU)
	require.Equal(t, kernel.Variants(), r.Variants)
	require.Equal(t, 2, r.Threads)
	require.EqualValues(t, 4<<20, r.Buffer)
	require.Len(t, r.find("fma", "multiply-add"), 2*len(r.Variants))
	for _, x := range r.Rates {
		require.Positive(t, x.Median, "%+v", x)
		require.Equal(t, 2, x.Rounds)
		require.GreaterOrEqual(t, x.Best, x.Median)
	}
	disk := r.find("disk", "write and fsync")
	require.Len(t, disk, 1)
	require.Zero(t, disk[0].Threads)
	encode := r.find("nf4", "encode, in memory")
	require.Len(t, encode, 2)
	require.Equal(t, "read", encode[0].ShareOf)
	require.Positive(t, encode[0].Share)
	require.Len(t, r.LeftOut, 2, "the products")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestBenchRatios(t *testing.T) {
	b := newBenchmarks(2, []string{"go"}, 256<<20)
	require.NoError(t, b.addNF4Products())
	require.Len(t, b.list, 8)
	var measured []speed.Rates
	for i := range b.list {
		measured = append(measured, speed.Rates{float64(i+1) * 1e9})
	}
	out := b.rates(measured)
	require.Len(t, out, 12)
	require.Equal(t, "128 x 4096 x 4096 ratio", out[4].Name)
	require.Equal(t, 1, out[4].Threads)
	require.InDelta(t, 1.0/3, out[4].Median, 1e-9)
	require.InDelta(t, 2.0/4, out[5].Median, 1e-9)
	require.Equal(t, "512 x 4096 x 4096 ratio", out[10].Name)
	require.InDelta(t, 5.0/7, out[10].Median, 1e-9)
	require.Zero(t, out[10].Share)
}

// TestBenchShares: a share is taken round by round, of what was fastest.
func TestBenchShares(t *testing.T) {
	row := func(name string, of ...benchKey) benchmark {
		return benchmark{rate: benchRate{Section: "memory", Name: name, Threads: 1}, of: of}
	}
	b := &benchmarks{threads: []int{1}, list: []benchmark{
		row("slow"), row("fast"),
		row("x", benchKey{"memory", "slow", "", 1}, benchKey{"memory", "fast", "", 1}, benchKey{"memory", "none", "", 1}),
	}}
	out := b.rates([]speed.Rates{{1, 1, 1}, {10, 20, 40}, {5, 5, 30}})
	require.Equal(t, "fast", out[2].ShareOf)
	require.Equal(t, 0.5, out[2].Share)
	require.Empty(t, out[0].ShareOf)
	require.Zero(t, out[0].Share)
}

func TestBenchUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--only", "gpu"}, "hint: there is fma, memory, disk"},
		{[]string{"--runs", "0"}, "--runs 0"},
		{[]string{"--disk-size", "0"}, "at least 1"},
	} {
		o := nibble(t, append([]string{"bench"}, c.args...)...)
		require.Equal(t, exitUsage, o.code)
		require.Contains(t, o.stderr, c.want)
	}
	o := nibble(t, "bench", "--only", "disk", "--memory", "8MiB", "--dir", t.TempDir()+"/none")
	require.Equal(t, exitFailed, o.code)
	require.Contains(t, o.stderr, "no such file")
}

// TestInterruptedBench: the file that the disk is measured with does not stay.
func TestInterruptedBench(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(binary, "bench", "--only", "disk", "--memory", "8MiB", "--disk-size", "4GiB", "--dir", dir)
	require.NoError(t, cmd.Start())
	time.Sleep(500 * time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	_ = cmd.Wait()
	require.Equal(t, exitInterrupted, cmd.ProcessState.ExitCode())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}
