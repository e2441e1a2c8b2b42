package main

import (
	"bufio"
	"bytes"
	bin "encoding/binary"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/seed18967229/nibble/train"
)

// What a run prints: lines in a pipe, a stream of objects with --json, results alone with
// --quiet.
func TestTrainingPrints(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	plain := nibble(t, trainIn(dir, "plain", "--steps-per-report", "3")...)
	require.Equal(t, exitDone, plain.code, plain.stderr)
	require.Contains(t, plain.stdout, "training 11,560 of 260,032 parameters (4.45 %): 12 steps over 9 examples\n")
	for _, text := range []string{plain.stdout, plain.stderr} {
		require.NotContains(t, text, "\x1b", "no escape codes in a pipe")
		require.NotContains(t, text, "\r")
	}
	line := regexp.MustCompile(`^step (\d+)/12  loss \d+\.\d{4} \(smoothed \d+\.\d{4}\)  grad norm \d+\.\d{3}  lr \S+  \d+ tokens/s(  peak \S+ \S+ of \S+ \S+ planned)?  disk wait \d+ %(  ETA \S+)?$`)
	eval := regexp.MustCompile(`^step (\d+)/12  validation loss \d+\.\d{4}, perplexity \S+`)
	var steps, evals []string
	for _, l := range strings.Split(strings.TrimSpace(plain.stderr), "\n") {
		if m := line.FindStringSubmatch(l); m != nil {
			steps = append(steps, m[1])
			require.Equal(t, m[1] == "12", m[3] == "", "%s: the last step has no time left", l)
		} else if m := eval.FindStringSubmatch(l); m != nil {
			evals = append(evals, m[1])
		} else {
			require.Fail(t, "what is this line?", l)
		}
	}
	require.Equal(t, []string{"1", "3", "6", "9", "12"}, steps)
	require.Equal(t, []string{"0", "4", "8", "12"}, evals)

	stream := nibble(t, trainIn(dir, "stream", "--json", "--verbose")...)
	require.Equal(t, exitDone, stream.code, stream.stderr)
	lines := strings.Split(strings.TrimSpace(stream.stdout), "\n")
	require.Len(t, lines, 14, "steps 0 to 12 and the result")
	logged := strings.Split(strings.TrimSpace(readFile(t, filepath.Join(dir, "stream", logName))), "\n")
	for i, l := range lines[:13] {
		require.JSONEq(t, logged[i], l)
		var r struct {
			Step int
			Loss *float64
			Eval *float64 `json:"eval_loss"`
		}
		require.NoError(t, json.Unmarshal([]byte(l), &r))
		require.Equal(t, i, r.Step)
		require.Equal(t, i > 0, r.Loss != nil)
		require.Equal(t, i%4 == 0, r.Eval != nil)
	}
	var result trainResult
	require.NoError(t, json.Unmarshal([]byte(lines[13]), &result))
	require.Equal(t, 12, result.Steps)
	require.Contains(t, stream.stderr, "training 11,560 of 260,032 parameters")
	require.Contains(t, stream.stderr, "the loss of 12 steps")

	quiet := nibble(t, trainIn(dir, "quiet", "--quiet")...)
	require.Equal(t, exitDone, quiet.code)
	require.Empty(t, quiet.stderr)
	require.True(t, strings.HasPrefix(quiet.stdout, filepath.Join(dir, "quiet")+": 12 steps in "), quiet.stdout)
	require.NotContains(t, quiet.stdout, "step 1/")

	for _, out := range []string{"plain", "stream", "quiet"} {
		f, err := os.Open(filepath.Join(dir, out, picturePNG))
		require.NoError(t, err)
		_, err = png.DecodeConfig(f)
		require.NoError(t, err)
		f.Close()
		svg := readFile(t, filepath.Join(dir, out, pictureSVG))
		require.NoError(t, xml.Unmarshal([]byte(svg), new(struct{})))
		for _, name := range []string{"training", "training, smoothed", "validation"} {
			require.Contains(t, svg, ">"+name+"<")
		}
		require.Equal(t, 12, shownIn(t, readFile(t, filepath.Join(dir, out, runPage))))
		require.NoDirExists(t, filepath.Join(dir, out, eventsDir))
	}
}

// shownIn returns the last step of a page that shows every step before it, and is of a run
// that finished.
func shownIn(t *testing.T, page string) int {
	t.Helper()
	m := regexp.MustCompile(`(?s)<script id="data" type="application/json">(.*?)</script>`).FindStringSubmatch(page)
	require.NotNil(t, m)
	var data struct {
		Status string
		Points []struct{ S, N int }
		Evals  []struct{ S int }
		Run    struct{ Planned int64 }
	}
	require.NoError(t, json.Unmarshal([]byte(m[1]), &data))
	require.Equal(t, "finished", data.Status)
	require.Positive(t, data.Run.Planned)
	for i, p := range data.Points {
		require.Equal(t, i+1, p.S)
		require.Equal(t, 1, p.N)
	}
	for i, e := range data.Evals {
		require.Equal(t, 4*i, e.S)
	}
	return len(data.Points)
}

// scalars reads the event files of a directory as TensorBoard does: in the order of their
// names, and when a file says from which step on it begins, what came before of these
// steps and later ones is forgotten.
func scalars(t *testing.T, dir string) map[string]map[int64]float32 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	out := make(map[string]map[int64]float32)
	for _, f := range files {
		for b := []byte(readFile(t, f)); len(b) > 0; {
			n := bin.LittleEndian.Uint64(b)
			e := protoMessage(t, b[12:12+n])
			b = b[16+n:]
			step := int64(0)
			if v := e[2]; v != nil {
				step = int64(v[0].(uint64))
			}
			if e[7] != nil { // session_log
				for _, values := range out {
					for s := range values {
						if s >= step {
							delete(values, s)
						}
					}
				}
			}
			for _, s := range e[5] { // summary
				for _, v := range protoMessage(t, s.([]byte))[1] {
					v := protoMessage(t, v.([]byte))
					tag := string(v[1][0].([]byte))
					if v[2] == nil {
						continue
					}
					if out[tag] == nil {
						out[tag] = make(map[int64]float32)
					}
					require.NotContains(t, out[tag], step, "%s of step %d is there twice", tag, step)
					out[tag][step] = math.Float32frombits(v[2][0].(uint32))
				}
			}
		}
	}
	return out
}

// protoMessage takes a protobuf message apart.
func protoMessage(t *testing.T, b []byte) map[protowire.Number][]any {
	t.Helper()
	m := make(map[protowire.Number][]any)
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		require.Positive(t, n)
		b = b[n:]
		var v any
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			v, n = protowire.ConsumeFixed32(b)
		case protowire.Fixed64Type:
			v, n = protowire.ConsumeFixed64(b)
		default:
			v, n = protowire.ConsumeBytes(b)
		}
		require.Positive(t, n)
		m[field], b = append(m[field], v), b[n:]
	}
	return m
}

// A run that is resumed behind what it has already shown shows every step once.
func TestResumedScreens(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	out := filepath.Join(dir, "out")
	check := func() {
		t.Helper()
		require.Equal(t, 12, shownIn(t, readFile(t, filepath.Join(out, runPage))))
		all := scalars(t, filepath.Join(out, eventsDir))
		for _, tag := range []string{"train/loss", "train/grad_norm", "train/learning_rate", "train/epoch"} {
			require.Len(t, all[tag], 12, tag)
		}
		require.Len(t, all["eval/loss"], 4)
		for _, r := range logWithoutTimes(t, filepath.Join(out, logName)) {
			step := int64(r["step"].(float64))
			if loss, ok := r["loss"]; ok {
				require.Equal(t, float32(loss.(float64)), all["train/loss"][step])
			}
			if loss, ok := r["eval_loss"]; ok {
				require.Equal(t, float32(loss.(float64)), all["eval/loss"][step])
			}
		}
	}
	goBack := func() {
		for _, later := range []string{"checkpoint-8", "checkpoint-12"} {
			require.NoError(t, os.RemoveAll(filepath.Join(out, later)))
		}
	}
	ok(t, trainIn(dir, "out", "--report-to", "tensorboard")...)
	check()
	for range 2 {
		goBack()
		ok(t, trainIn(dir, "out", "--report-to", "tensorboard", "--resume", out)...)
		check()
	}
	files, err := os.ReadDir(filepath.Join(out, eventsDir))
	require.NoError(t, err)
	require.Len(t, files, 3, "each time a new file")

	// A run whose first part had no event files has all of it in the second's.
	require.NoError(t, os.RemoveAll(filepath.Join(out, eventsDir)))
	goBack()
	ok(t, trainIn(dir, "out", "--report-to", "tensorboard", "--resume", out)...)
	check()
}

// The page is there while the run goes on, and hears how it ends.
func TestLiveTraining(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	cmd := exec.Command(binary, trainIn(dir, "out", "--live", ":0", "--iters", "200", "--save-every", "0", "--steps-per-eval", "50")...)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	url := ""
	for url == "" && lines.Scan() {
		url, _ = strings.CutPrefix(lines.Text(), "live page: ")
		if !strings.HasPrefix(url, "http") {
			url = ""
		}
	}
	require.Regexp(t, `^http://127\.0\.0\.1:\d+/$`, url)
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	page, err := http.Get(url)
	require.NoError(t, err)
	text, err := io.ReadAll(page.Body)
	require.NoError(t, err)
	page.Body.Close()
	require.Contains(t, string(text), "stories260K: training")
	events, err := http.Get(url + "events")
	require.NoError(t, err)
	defer events.Body.Close()
	text, err = io.ReadAll(events.Body)
	require.NoError(t, err, "the stream ends with the run")
	require.NoError(t, cmd.Wait())
	var kinds []string
	for _, l := range strings.Split(string(text), "\n") {
		if k, ok := strings.CutPrefix(l, "event: "); ok {
			kinds = append(kinds, k)
		}
	}
	require.Equal(t, "whole", kinds[0])
	require.Equal(t, "whole", kinds[len(kinds)-1])
	require.Contains(t, kinds, "change")
	require.Contains(t, string(text[strings.LastIndex(string(text), "data: "):]), `"status":"finished"`)
	_, err = http.Get(url)
	require.Error(t, err, "the server ends with the run")
}

func TestScreensFail(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	ok(t, trainIn(dir, "out", "--iters", "4")...)
	before := every(t, dir)
	for _, c := range []struct {
		code  int
		text  string
		hint  string
		flags []string
	}{
		{exitFailed, "address already in use", "hint: choose another port", []string{"--live", taken.Addr().String(), "--force"}},
		{exitUsage, "no address to listen on", "write :8080", []string{"--live", "here"}},
		{exitUsage, "want one of: none, tensorboard", "hint:", []string{"--report-to", "wandb"}},
	} {
		o := nibble(t, trainIn(dir, "out", c.flags...)...)
		require.Equal(t, c.code, o.code, "%v: %s", c.flags, o.stderr)
		require.Contains(t, o.stderr, c.text)
		require.Contains(t, o.stderr, c.hint)
		require.NotContains(t, o.stderr, "step 1/")
		require.Equal(t, before, every(t, dir), "nothing is touched")
	}

	o := nibble(t, trainIn(dir, "open", "--iters", "4", "--live", "0.0.0.0:0", "--quiet")...)
	require.Equal(t, exitDone, o.code)
	require.Contains(t, o.stderr, "warning: --live 0.0.0.0:0: everybody who can reach this machine")
}

// A disk that is too full for what a run shows does not end it: what is missing is told
// when it happens and at the end, and the adapter is that of a run that had the room.
func TestDiskFullForScreens(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	run := func(out string) []string {
		return trainIn(dir, out, "--report-to", "tensorboard", "--target-modules", "q_proj", "--layers-to-transform", "0", "--rank", "1", "--iters", "6", "--quiet")
	}
	ok(t, run("whole")...)
	o := limited(t, "2", run("out")...)
	require.Equal(t, exitDone, o.code, o.stderr)
	require.Equal(t, tensors(t, filepath.Join(dir, "whole/adapter_model.safetensors")), tensors(t, filepath.Join(dir, "out/adapter_model.safetensors")))
	for _, name := range []string{runPage, picturePNG, pictureSVG} {
		path := filepath.Join(dir, "out", name)
		require.Equal(t, 1, strings.Count(o.stderr, "warning: "+path+" cannot be written, training goes on without"), o.stderr)
		require.Contains(t, o.stderr, "warning: "+path+" is not whole")
		require.Contains(t, o.stderr, "file too large")
		require.NoFileExists(t, path)
	}
	for _, f := range every(t, filepath.Join(dir, "out")) {
		require.False(t, strings.Contains(f, ".nibble"), "%s is left behind", f)
	}
	// What the event file has room for can be read.
	require.Contains(t, o.stderr, filepath.Join(dir, "out", eventsDir)+" cannot be written")
	kept := scalars(t, filepath.Join(dir, "out", eventsDir))["train/loss"]
	require.NotEmpty(t, kept)
	require.Less(t, len(kept), 6)
	steps := slices.Sorted(func(yield func(int64) bool) {
		for s := range kept {
			if !yield(s) {
				return
			}
		}
	})
	require.Equal(t, int64(len(steps)), steps[len(steps)-1], "there is no gap")
}

// What a record may hold beside figures is on every screen.
func TestScreensShowSamplesAndNotes(t *testing.T) {
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	a := &app{out: &stdout, err: &stderr}
	o := &trainOptions{model: "models/m", dataFlags: dataFlags{paths: []string{"d"}}, out: dir, report: 1, Config: train.DefaultConfig()}
	o.screens.reportTo = "tensorboard"
	s, err := a.newScreens(o, &train.Plan{Total: 1 << 30, Trainable: 5, Params: 100})
	require.NoError(t, err)
	s.begin(3, &train.Checkpoint{})
	for i, loss := range []float64{4, 3, 2.5, 2.75} {
		r := train.Record{Step: i, EvalLoss: &loss, Best: i < 3, Samples: []train.Sample{{Prompt: "Once\n", Text: fmt.Sprint("upon ", i)}}}
		if i > 0 {
			r.Loss, r.LearningRate, r.Elapsed = loss+0.5, 1e-4, float64(i)
		}
		if i == 2 {
			r.Notes = []string{"the weights do not move"}
		}
		s.log(r)
	}
	s.end(nil)
	for _, line := range []string{
		"step 0/3  validation loss 4.0000, perplexity 54.60, the best so far\n",
		"step 2/3  validation loss 2.5000, perplexity 12.18, the best so far\n",
		"step 3/3  validation loss 2.7500, perplexity 15.64\n",
		"step 1/3  sample  Once↵│upon 1\n",
		`step 2/3  warning: the weights do not move`,
	} {
		require.Contains(t, stderr.String(), line)
	}
	require.Contains(t, stdout.String(), filepath.Join(dir, runPage))
	svg := readFile(t, filepath.Join(dir, pictureSVG))
	require.Contains(t, svg, ">best, 2.5000<")

	m := regexp.MustCompile(`(?s)<script id="data" type="application/json">(.*?)</script>`).FindStringSubmatch(readFile(t, filepath.Join(dir, runPage)))
	require.NotNil(t, m)
	var page struct {
		Evals []struct {
			S    int
			Best bool
		}
		Samples []struct{ List []train.Sample }
		Notes   []struct{ Text string }
	}
	require.NoError(t, json.Unmarshal([]byte(m[1]), &page))
	require.Len(t, page.Evals, 4)
	require.True(t, page.Evals[2].Best)
	require.False(t, page.Evals[3].Best)
	require.Equal(t, []train.Sample{{Prompt: "Once\n", Text: "upon 3"}}, page.Samples[3].List)
	require.Equal(t, "the weights do not move", page.Notes[0].Text)

	files, err := filepath.Glob(filepath.Join(dir, eventsDir, "*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	events := readFile(t, files[0])
	for _, text := range []string{"samples/0/text_summary", "    Once\n    upon 3", "notes/text_summary", "    the weights do not move", "args/text_summary"} {
		require.Contains(t, events, text)
	}
	require.Equal(t, map[int64]float32{0: 4, 1: 3, 2: 2.5, 3: 2.75}, scalars(t, filepath.Join(dir, eventsDir))["eval/loss"])

	// A run that failed says why on its page.
	s, err = a.newScreens(o, &train.Plan{})
	require.NoError(t, err)
	s.begin(3, &train.Checkpoint{})
	s.log(train.Record{Step: 1, Loss: 1})
	s.end(errors.New("step 2: the loss is NaN"))
	page2 := readFile(t, filepath.Join(dir, runPage))
	require.Contains(t, page2, `"status":"failed","why":"step 2: the loss is NaN"`)
}
