package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/seed18967229/nibble/internal/memory"
)

// unit says how a progress bar counts.
type unit int

const (
	bytesUnit unit = iota
	itemsUnit
)

// patience is how long something may take before a bar is shown.
const patience = time.Second

// bar shows how far something is: on a terminal a bar with rate and time left,
// in a pipe a line now and then, and nothing with --quiet or when it is over
// within a second.
type bar struct {
	mu     sync.Mutex
	what   string
	total  int64
	done   int64
	unit   unit
	start  time.Time
	show   *mpb.Progress // of a terminal
	bar    *mpb.Bar
	lines  io.Writer // of a pipe
	nextAt time.Duration
	spoken bool // println says how far it is

	terminal io.Writer
}

func (a *app) progress(what string, total int64, u unit) *bar {
	counter, speed := decor.CountersKibiByte("% .1f / % .1f"), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")
	if u == itemsUnit {
		counter, speed = decor.CountersNoUnit("%d / %d"), decor.AverageSpeed(0, "%.1f/s")
	}
	return a.progressSaying(what, total, u, counter, decor.Name("  "), speed, decor.Name("  ETA "), decor.AverageETA(decor.ET_STYLE_GO))
}

// progressSaying is progress with something else to say behind the bar of a terminal.
func (a *app) progressSaying(what string, total int64, u unit, say ...decor.Decorator) *bar {
	b := &bar{what: what, total: total, unit: u, start: time.Now(), nextAt: 10 * patience}
	if a.quiet {
		return b
	}
	if !terminal(a.err) {
		b.lines = a.err
		return b
	}
	b.terminal = a.err
	delay := make(chan any)
	time.AfterFunc(patience, func() { close(delay) })
	b.show = mpb.New(mpb.WithOutput(a.err), mpb.WithRenderDelay(delay), mpb.WithWidth(40), mpb.WithRefreshRate(200*time.Millisecond))
	b.bar = b.show.AddBar(total,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(what+" ")),
		mpb.AppendDecorators(say...))
	return b
}

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// add counts n more.
func (b *bar) add(n int64) {
	if b.bar != nil {
		b.bar.IncrInt64(n)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done += n
	if b.lines == nil {
		return
	}
	if elapsed := time.Since(b.start); elapsed >= b.nextAt && b.total > 0 && !b.spoken {
		b.nextAt = elapsed + 10*patience
		left := time.Duration(float64(elapsed) * float64(b.total-b.done) / float64(max(1, b.done))).Round(time.Second)
		fmt.Fprintf(b.lines, "%s: %s of %s, %v left\n", b.what, b.count(b.done), b.count(b.total), left)
	}
}

func (b *bar) count(n int64) string {
	if b.unit == bytesUnit {
		return memory.FormatSize(n)
	}
	return fmt.Sprint(n)
}

// skip counts n as done before the start.
func (b *bar) skip(n int64) {
	if b.bar != nil {
		b.bar.SetCurrent(n)
		b.bar.DecoratorAverageAdjust(time.Now())
	}
}

// println prints a line of progress above the bar, or in a pipe in place of the
// lines that add prints.
func (b *bar) println(line string) {
	b.spoken = true
	switch {
	case b.show != nil && time.Since(b.start) > patience:
		fmt.Fprintln(b.show, line)
	case b.show != nil: // the bar is not there yet, and would swallow it
		fmt.Fprintln(b.terminal, line)
	case b.lines != nil:
		fmt.Fprintln(b.lines, line)
	}
}

// warn prints a line whatever is asked for, above the bar if there is one.
func (b *bar) warn(w io.Writer, line string) {
	if b != nil && b.show != nil && time.Since(b.start) > patience {
		w = b.show
	}
	fmt.Fprintln(w, line)
}

// stop takes the bar away.
func (b *bar) stop() {
	if b.bar != nil {
		b.bar.Abort(true)
		b.show.Wait()
	}
}
