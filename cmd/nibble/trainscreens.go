package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/seed18967229/nibble/internal/chart"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/live"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/tensorboard"
	"github.com/seed18967229/nibble/train"
)

// What a run shows of itself in its output directory, beside the log.
const (
	picturePNG = "loss.png"
	pictureSVG = "loss.svg"
	runPage    = "report.html"
	eventsDir  = "runs" // transformers' name
)

// screenOptions are the flags of what a run shows of itself.
type screenOptions struct {
	live     liveFlag
	reportTo reportToFlag
}

func (o *trainOptions) screenFlags(f *pflag.FlagSet) {
	f.Var(&o.screens.live, "live", "show the run in a browser while it goes on, at this port of this machine; HOST:PORT for others")
	o.screens.reportTo = "none"
	f.Var(&o.screens.reportTo, "report-to", "none or tensorboard: event files in "+eventsDir+" of the output directory")
}

// liveFlag is --live: a port, or an address.
type liveFlag string

func (l *liveFlag) String() string { return string(*l) }

func (l *liveFlag) Set(s string) error {
	*l = liveFlag(s)
	return live.Check(s)
}

func (l *liveFlag) Type() string { return "[host]:port" }

// reportToFlag is --report-to.
type reportToFlag string

func (r *reportToFlag) String() string { return string(*r) }

func (r *reportToFlag) Set(s string) error {
	if known := []string{"none", "tensorboard"}; !slices.Contains(known, s) {
		return fmt.Errorf("want one of: %s", strings.Join(known, ", "))
	}
	*r = reportToFlag(s)
	return nil
}

func (r *reportToFlag) Type() string { return "name" }

// screens is everything by which a run is watched: lines and a bar, pictures, the page and
// its server, event files. None of it is worth the run: what cannot be written is told
// when it happens and at the end, and training goes on. (trainer_log.jsonl is not of
// these. It is the record of the run, and a run without one does not go on.)
type screens struct {
	*app
	o    *trainOptions
	plan *train.Plan

	steps, first int // steps of the run, and where this part of it began
	bar          *bar
	server       *live.Server
	board        *live.Board
	events       *tensorboard.Writer
	noEvents     bool
	records      []train.Record

	loss    chart.Average
	pace    chart.Average // seconds of a step
	elapsed float64       // at the last step
	now     live.Step     // the last

	broken map[string]error // what could not be written
	closed bool
}

// newScreens takes the port of the page, so that one that is taken shows before anything
// else happens.
func (a *app) newScreens(o *trainOptions, plan *train.Plan) (*screens, error) {
	s := &screens{app: a, o: o, plan: plan, broken: make(map[string]error)}
	if o.screens.live == "" {
		return s, nil
	}
	var err error
	if s.server, err = live.Listen(string(o.screens.live)); err != nil {
		return nil, fmt.Errorf("--live %s: %w", o.screens.live, err)
	}
	return s, nil
}

// begin shows the run, with what was logged of it before it was resumed.
func (s *screens) begin(steps int, from *train.Checkpoint) {
	s.steps, s.first = steps, from.State.Step
	method := map[string]string{"lora": "LoRA", "dora": "DoRA", "full": "Full fine-tuning"}[s.o.FineTuneType]
	s.board = live.NewBoard(live.Run{
		Program: "nibble " + version, Command: "nibble " + commandLine(os.Args[1:]),
		Title: filepath.Base(s.o.model) + ": training", Model: s.o.model, Data: strings.Join(s.o.paths, ", "), Output: s.o.out, Method: method,
		Steps: steps, Trainable: s.plan.Trainable, Params: s.plan.Params, Planned: s.plan.Total, Began: time.Now().Round(time.Second),
	})
	for _, r := range from.Log {
		s.take(r)
	}
	s.elapsed = 0
	if s.server != nil {
		s.server.Serve(s.board)
		s.note("live page: %s", s.server.URL())
		if s.server.Open() {
			fmt.Fprintf(s.err, "warning: --live %s: everybody who can reach this machine can see the run\n", s.o.screens.live)
		}
	}
	s.bar = s.progressSaying("train", int64(steps), itemsUnit, decor.CountersNoUnit("%d/%d"), decor.Any(func(decor.Statistics) string { return s.board.Line() }))
	s.bar.skip(int64(s.first))
}

// take reckons with a record, and puts it on the board.
func (s *screens) take(r train.Record) {
	s.records = append(s.records, r)
	st := live.Step{
		Step: r.Step, Loss: r.Loss, GradNorm: r.GradNorm, LearningRate: r.LearningRate,
		TokensPerSecond: r.TokensPerSecond, DiskWait: r.DiskWait, EvalLoss: r.EvalLoss, Best: r.Best, Notes: r.Notes,
	}
	for _, x := range r.Samples {
		st.Samples = append(st.Samples, live.Sample(x))
	}
	if r.Step > 0 {
		st.Smoothed = s.loss.Add(r.Loss)
		st.Seconds = r.Elapsed - s.elapsed
		if st.Seconds < 0 { // the run was resumed there
			st.Seconds = r.Elapsed
		}
		s.elapsed = r.Elapsed
		st.Left = s.pace.Add(st.Seconds) * float64(s.steps-r.Step)
	}
	if s.bar != nil { // of what was before, nobody knows
		st.Memory, st.Peak = memory.RSS(), memory.PeakRSS()
	}
	s.now = st
	s.board.Add(st)
}

// log shows a record.
func (s *screens) log(r train.Record) {
	s.take(r)
	s.write(r)
	if r.Step > 0 {
		s.bar.add(1)
	}
	if s.json {
		_ = json.NewEncoder(s.out).Encode(r)
		return
	}
	if s.quiet {
		return
	}
	if every := s.o.report; r.Step > 0 && (r.Step == 1 || r.Step == s.first+1 || r.Step == s.steps || every > 0 && r.Step%every == 0) {
		s.bar.println(s.line(r))
	}
	s.reportWatch(s.bar, r, s.steps)
}

// line is what is printed of a step.
func (s *screens) line(r train.Record) string {
	line := fmt.Sprintf("step %d/%d  loss %.4f (smoothed %.4f)  grad norm %.3f  lr %.2e  %.0f tokens/s",
		r.Step, s.steps, r.Loss, s.now.Smoothed, r.GradNorm, r.LearningRate, r.TokensPerSecond)
	if s.now.Peak > 0 {
		line += fmt.Sprintf("  peak %s of %s planned", memory.FormatSize(s.now.Peak), memory.FormatSize(s.plan.Total))
	}
	line += fmt.Sprintf("  disk wait %.0f %%", 100*s.now.WaitShare())
	if r.Step < s.steps {
		line += "  ETA " + (time.Duration(s.now.Left) * time.Second).String()
	}
	return line
}

// write puts a record into the event file, which it makes if there is none.
func (s *screens) write(r train.Record) {
	if s.o.screens.reportTo != "tensorboard" || s.noEvents {
		return
	}
	if err := s.writeEvents(r); err != nil {
		// A file with a gap would look like one without.
		s.noEvents = true
		s.fail(eventsDir, err)
	}
}

func (s *screens) writeEvents(r train.Record) error {
	now, list := time.Now(), []train.Record{r}
	if s.events == nil {
		dir := filepath.Join(s.o.out, eventsDir)
		if !tensorboard.Exist(dir) {
			list = s.records // from the start, though the run was resumed
		}
		var err error
		if s.events, err = tensorboard.Create(dir, int64(r.Step), now); err != nil {
			return err
		}
		var args tensorboard.Summary
		config, err := json.MarshalIndent(s.o.Config, "    ", "  ")
		if err != nil {
			return err
		}
		args.Text("args", "    "+string(config))
		if err := s.events.Write(now, int64(s.first), &args); err != nil {
			return err
		}
	}
	for _, r := range list {
		if err := s.events.Write(now, int64(r.Step), summaryOf(r)); err != nil {
			return err
		}
	}
	return nil
}

// summaryOf is a record under the names that transformers' TensorBoardCallback gives, and
// beside them what it does not log.
func summaryOf(r train.Record) *tensorboard.Summary {
	var s tensorboard.Summary
	if r.Step > 0 {
		s.Scalar("train/loss", r.Loss)
		s.Scalar("train/grad_norm", r.GradNorm)
		s.Scalar("train/learning_rate", r.LearningRate)
		s.Scalar("train/epoch", r.Epoch)
		s.Scalar("train/num_tokens", float64(r.NumTokens))
		s.Scalar("train/tokens_per_second", r.TokensPerSecond)
		s.Scalar("train/disk_wait", r.DiskWait)
	}
	if r.EvalLoss != nil {
		s.Scalar("eval/loss", *r.EvalLoss)
		s.Scalar("eval/perplexity", math.Exp(*r.EvalLoss))
	}
	for i, x := range r.Samples {
		s.Text(fmt.Sprintf("samples/%d", i), quoted(x.Prompt+x.Text))
	}
	if len(r.Notes) > 0 {
		s.Text("notes", quoted(strings.Join(r.Notes, "\n")))
	}
	return &s
}

// quoted makes Markdown of a text that shows it as it is.
func quoted(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }

// draw writes the pictures and the page of the run so far.
func (s *screens) draw() {
	s.save(runPage, s.board.HTML)
	var raw, eval, best []chart.Point
	for _, r := range s.records {
		if r.Step > 0 {
			raw = append(raw, chart.Point{X: float64(r.Step), Y: r.Loss})
		}
		if r.EvalLoss != nil {
			eval = append(eval, chart.Point{X: float64(r.Step), Y: *r.EvalLoss})
			if r.Best {
				best = eval[len(eval)-1:]
			}
		}
	}
	series := []chart.Series{
		{Name: "training", Style: chart.Faint, Points: raw},
		{Name: "training, smoothed", Style: chart.Strong, Points: chart.Smooth(raw)},
		{Name: "validation", Style: chart.Dotted, Points: eval},
	}
	if len(best) > 0 {
		series = append(series, chart.Series{Name: fmt.Sprintf("best, %.4f", best[0].Y), Style: chart.Ring, Points: best[:1]})
	}
	for name, svg := range map[string]bool{picturePNG: false, pictureSVG: true} {
		s.save(name, func() ([]byte, error) {
			return chart.Lines("Loss", "step", "cross-entropy, nats per token", svg, series...)
		})
	}
	s.detail("%s, %s and %s: the loss of %d steps, each and smoothed, and of %d evaluations", picturePNG, pictureSVG, runPage, len(raw), len(eval))
}

// save writes a file of the output directory.
func (s *screens) save(name string, make func() ([]byte, error)) {
	b, err := make()
	if err == nil {
		err = fsx.WriteFile(filepath.Join(s.o.out, name), b, true)
	}
	if err != nil {
		s.fail(name, err)
		return
	}
	delete(s.broken, name)
}

// fail says, once, that something cannot be written.
func (s *screens) fail(name string, err error) {
	if s.broken[name] == nil {
		line := fmt.Sprintf("%s cannot be written, training goes on without: %s", filepath.Join(s.o.out, name), errorText(err))
		s.bar.warn(s.err, "warning: "+line)
		s.board.Note(line)
	}
	s.broken[name] = err
}

// end says on every screen how the run has ended.
func (s *screens) end(err error) {
	if s.board == nil {
		return
	}
	s.bar.stop()
	switch {
	case err == nil:
		s.board.End(live.Finished, "")
	case errors.Is(err, context.Canceled):
		s.board.End(live.Stopped, "Interrupted. Nothing is lost: go on with --resume "+s.o.out)
	default:
		s.board.End(live.Failed, errorText(err))
	}
	if s.events != nil {
		if err := s.events.Close(); err != nil {
			s.fail(eventsDir, err)
		}
	}
	if len(s.records) > 0 {
		s.draw()
		if s.broken[runPage] == nil {
			s.note("  curves        %s, %s, %s", filepath.Join(s.o.out, runPage), picturePNG, pictureSVG)
		}
	}
	for name, err := range s.broken {
		fmt.Fprintf(s.err, "warning: %s is not whole: %s\n", filepath.Join(s.o.out, name), errorText(err))
	}
	s.close()
}

// close ends the server.
func (s *screens) close() {
	if s.server != nil && !s.closed {
		s.closed = true
		_ = s.server.Close() // the run is over, and those who watched have been told
	}
}
