package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/speed"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
)

// quantized are the shapes of the weights that NF4 is measured with.
var quantized = [][2]int64{{4096, 4096}, {4096, 11008}}

// header is how they are stored.
var header = nf4.Header{BlockSize: nf4.DefaultBlock, Double: true, Source: tensor.F32}

// bitsandbytes times NF4 with double quantization by nibble and by bitsandbytes in turn,
// there and back, from and to float32 in memory, and prints a table. That both make the
// same codes is checked.
func bitsandbytes(ctx context.Context, o *options, dir string, rounds int) error {
	threads := slices.Compact([]int{1, runtime.GOMAXPROCS(0)})
	for i, s := range quantized {
		w, err := newWeight(ctx, o.python, dir, s)
		if err != nil {
			return err
		}
		if i == 0 {
			version, err := w.peer.ask("version")
			if err != nil {
				return err
			}
			fmt.Printf("%s, %d rounds; %s\n\n", speed.CPU(), rounds, version)
			fmt.Println("| NF4, block 64, double quantization | threads | nibble, median | best | bitsandbytes, median | best | ratio of medians |")
			fmt.Println("|---|---|---|---|---|---|---|")
		}
		err = w.measure(ctx, threads, rounds)
		if err := errors.Join(err, w.peer.close()); err != nil {
			return err
		}
	}
	return nil
}

// weight is a matrix that both quantize.
type weight struct {
	rows, cols int64
	values     []float32
	peer       *dialogue

	blob    []byte // quantized by nibble, as package nf4 lays it out
	decoded []float32
}

func newWeight(ctx context.Context, python, dir string, shape [2]int64) (*weight, error) {
	w := &weight{rows: shape[0], cols: shape[1]}
	buf := speed.NewBuffer(4*w.rows*w.cols, 3)
	w.values, w.decoded = buf.Floats, make([]float32, w.rows*w.cols)
	path := filepath.Join(dir, "values.f32")
	if err := os.WriteFile(path, buf.Bytes, 0o666); err != nil {
		return nil, err
	}
	var err error
	if w.peer, err = converse(ctx, python, "internal/bench/peers/bnb.py", path, strconv.FormatInt(w.rows, 10), strconv.FormatInt(w.cols, 10)); err != nil {
		return nil, err
	}
	return w, w.same()
}

// quantize quantizes the values to codes, which has room for them, and returns the
// absmax.
func (w *weight) quantize(codes []byte) ([]byte, *nf4.DoubleQuant, error) {
	enc, err := nf4.NewEncoder(tensor.NF4, nf4.DefaultBlock, w.rows*w.cols)
	if err != nil {
		return nil, nil, err
	}
	if codes, err = enc.Append(codes[:0], w.values); err != nil {
		return nil, nil, err
	}
	if codes, err = enc.Finish(codes); err != nil {
		return nil, nil, err
	}
	return codes, nf4.Double(enc.Absmax(), nf4.Mean(enc.Absmax())), nil
}

// same checks that both quantize to the same codes, and keeps them to be decoded. The
// offset of double quantization is a mean, which torch sums otherwise than nibble, so a
// few of the 8-bit absmax may differ and are not compared.
func (w *weight) same() error {
	answer, err := w.peer.ask("digest")
	if err != nil {
		return err
	}
	codes, dq, err := w.quantize(make([]byte, 0, w.rows*w.cols/2))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(codes)
	if answer != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("bitsandbytes quantizes %d x %d values to other codes than nibble", w.rows, w.cols)
	}
	size := header.Sections(w.rows * w.cols).Size()
	w.blob = make([]byte, size)
	copy(w.blob[size-int64(len(codes)):], codes)
	header.Assemble(w.blob, w.rows*w.cols, nil, dq)
	return nil
}

// measure times both in turn and prints the lines of the table.
func (w *weight) measure(ctx context.Context, threads []int, rounds int) error {
	type line struct {
		name    string
		threads int
		c       speed.Case
		ours    speed.Rates
		theirs  speed.Rates
	}
	var lines []*line
	elems := float64(w.rows * w.cols)
	for _, n := range threads {
		// nibble quantizes as many tensors at once as it has processors.
		codes := make([][]byte, n)
		for i := range codes {
			codes[i] = make([]byte, 0, w.rows*w.cols/2)
		}
		lines = append(lines, &line{name: "quantize", threads: n, c: speed.Case{Threads: n, Work: elems * float64(n), Run: func() error {
			return kernel.Each(n, int64(n)*w.rows*w.cols, func(i int) error {
				_, _, err := w.quantize(codes[i])
				return err
			})
		}}})
	}
	info := header.Info("weight", tensor.NF4, tensor.Shape{w.rows, w.cols})
	rows, err := tensor.NewCodecs(nf4.Codecs()...).Open(info, tensor.Memory(w.blob))
	if err != nil {
		return err
	}
	for _, n := range threads {
		lines = append(lines, &line{name: "dequantize", threads: n, c: speed.Case{Threads: n, Work: elems, Run: func() error {
			return speed.Share(int(w.rows), 1, func(from, to int) error {
				return rows.ReadRows(w.decoded[int64(from)*w.cols:int64(to)*w.cols], int64(from))
			})
		}}})
	}
	for range rounds {
		for _, l := range lines {
			ours, err := speed.Rounds(ctx, []speed.Case{l.c}, 1, func() {})
			if err != nil {
				return err
			}
			seconds, err := w.peer.seconds(l.name + " " + strconv.Itoa(l.threads))
			if err != nil {
				return err
			}
			l.ours, l.theirs = append(l.ours, ours[0]...), append(l.theirs, elems/seconds)
		}
	}
	for _, l := range lines {
		fmt.Printf("| %s %d x %d | %d | %.0f M/s | %.0f | %.0f M/s | %.0f | %.2f |\n", l.name, w.rows, w.cols, l.threads,
			l.ours.Median()/1e6, l.ours.Best()/1e6, l.theirs.Median()/1e6, l.theirs.Best()/1e6, l.ours.Median()/l.theirs.Median())
	}
	return nil
}

// dialogue is a program that answers each line with one.
type dialogue struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
}

func converse(ctx context.Context, python string, args ...string) (*dialogue, error) {
	d := &dialogue{name: args[0], cmd: exec.CommandContext(ctx, python, args...)}
	d.cmd.Stderr = os.Stderr
	var err error
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.out = bufio.NewScanner(out)
	if err := d.cmd.Start(); err != nil {
		return nil, hint.Add(err, "give a Python with -python")
	}
	return d, nil
}

func (d *dialogue) ask(line string) (string, error) {
	if _, err := fmt.Fprintln(d.in, line); err != nil || !d.out.Scan() {
		err = errors.Join(err, d.out.Err(), d.close())
		return "", hint.Add(fmt.Errorf("%s does not answer %q: %w", d.name, line, err), "make bench-peers makes a Python that has what it needs")
	}
	return d.out.Text(), nil
}

func (d *dialogue) seconds(line string) (float64, error) {
	answer, err := d.ask(line)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(answer, 64)
}

func (d *dialogue) close() error { return errors.Join(d.in.Close(), d.cmd.Wait()) }
