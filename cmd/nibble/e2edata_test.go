package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// A realSet is rows of a data set that people train on, and a model to train on them.
type realSet struct {
	name, file string
	chat       bool // needs a model with a chat template
	flags      []string
}

var realSets = []realSet{
	{name: "gsm8k", file: "gsm8k.jsonl", flags: []string{"--separator", `\n`}},
	{name: "wikisql", file: "wikisql.jsonl"},
	{name: "alpaca", file: "alpaca.json"},
	{name: "sharegpt", file: "sharegpt.json", chat: true},
}

func (s *realSet) path() string { return filepath.Join("testdata/data", s.file) }

// model returns the path of a model in a workspace: stories260K, or one of random numbers
// whose template and tokenizer are Qwen2's.
func (s *realSet) model(t *testing.T, dir string) string {
	t.Helper()
	if !s.chat {
		return filepath.Join(dir, "stories260K")
	}
	model := filepath.Join(dir, "qwen2")
	for _, name := range []string{"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} {
		put(t, filepath.Join(model, name), readFile(t, filepath.Join(ofFamily("qwen2"), name)))
	}
	return model
}

func (s *realSet) rows(t *testing.T) (rows []map[string]any) {
	t.Helper()
	text := readFile(t, s.path())
	if filepath.Ext(s.file) == ".json" {
		require.NoError(t, json.Unmarshal([]byte(text), &rows))
		return rows
	}
	for line := range strings.Lines(text) {
		var row map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &row))
		rows = append(rows, row)
	}
	return rows
}

// inFormats writes the rows in every format that can hold them, and returns the files.
func (s *realSet) inFormats(t *testing.T, dir string) (files []string) {
	t.Helper()
	rows := s.rows(t)
	var lines []string
	names := slices.Sorted(maps.Keys(rows[0]))
	table := [][]string{names}
	for _, row := range rows {
		line, err := json.Marshal(row)
		require.NoError(t, err)
		lines = append(lines, string(line))
		var fields []string
		for _, name := range names {
			text, _ := row[name].(string)
			fields = append(fields, text)
		}
		table = append(table, fields)
	}
	list, err := json.MarshalIndent(map[string]any{"version": 1, "data": rows}, "", "  ")
	require.NoError(t, err)
	jsonl := strings.Join(lines, "\n") + "\n"
	texts := map[string]string{
		"a.jsonl": jsonl, "a.json": string(list), "a.jsonl.gz": gz(t, jsonl), "a.json.zst": zst(t, string(list)),
		"a.parquet": readFile(t, filepath.Join("testdata/data", s.name+".parquet")),
	}
	if !s.chat {
		texts["a.csv"], texts["a.tsv"] = separated(t, table, ','), separated(t, table, '\t')
		texts["a.csv.zst"] = zst(t, texts["a.csv"])
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		file := filepath.Join(dir, s.name, name)
		put(t, file, texts[name])
		files = append(files, file)
	}
	return files
}

func zst(t *testing.T, text string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return string(w.EncodeAll([]byte(text), nil))
}

// trainOn returns the arguments of three steps on a file.
func (s *realSet) trainOn(model, file, out string, more ...string) []string {
	return slices.Concat([]string{"train", "--model", model, "--data", file, "--output-dir", out, "--quiet",
		"--iters", "3", "--batch-size", "2", "--max-seq-length", "256", "--rank", "2", "--alpha", "4", "--learning-rate", "1e-2", "--lr-scheduler-type", "constant"}, s.flags, more)
}

// TestFormatsTrainTheSame trains on the same rows in every format: data check finds the
// same of them, and the losses and the adapter are the same to the last bit.
func TestFormatsTrainTheSame(t *testing.T) {
	for _, s := range realSets {
		t.Run(s.name, func(t *testing.T) {
			dir := workspace(t)
			model := s.model(t, dir)
			var first dataCheckResult
			var losses []map[string]any
			var adapter string
			for i, file := range s.inFormats(t, dir) {
				var check dataCheckResult
				okJSON(t, &check, slices.Concat([]string{"data", "check", "--model", model, "--data", file, "--show", "1"}, s.flags)...)
				require.Zero(t, check.Failed, "%s: %+v", file, check.Checks)
				require.Len(t, check.Files, 1)
				require.Equal(t, len(s.rows(t)), check.Files[0].Examples)
				check.Files[0].Path = ""
				for i := range check.Checks { // which name the format and the line
					check.Checks[i].Found = ""
				}

				out := filepath.Join(dir, "out"+itoa(i))
				ok(t, s.trainOn(model, file, out)...)
				log, weights := logWithoutTimes(t, filepath.Join(out, "trainer_log.jsonl")), readFile(t, filepath.Join(out, "adapter_model.safetensors"))
				if i == 0 {
					first, losses, adapter = check, log, weights
					require.Len(t, losses, 3)
					continue
				}
				require.Equal(t, first, check, file)
				require.Equal(t, losses, log, file)
				require.True(t, adapter == weights, "%s: another adapter", file)
			}
		})
	}
}

// TestTextFormatsTrainTheSame is the same of plain text.
func TestTextFormatsTrainTheSame(t *testing.T) {
	dir := workspace(t)
	s := realSet{name: "text"}
	text := readFile(t, filepath.Join(dir, "shakespeare/valid.txt"))[:8000]
	var losses []map[string]any
	for name, content := range map[string]string{"a.txt": text, "a.txt.gz": gz(t, text), "a.txt.zst": zst(t, text), "a.md": text} {
		put(t, filepath.Join(dir, name), content)
		out := filepath.Join(dir, "out-"+name)
		ok(t, s.trainOn(s.model(t, dir), filepath.Join(dir, name), out)...)
		log := logWithoutTimes(t, filepath.Join(out, "trainer_log.jsonl"))
		if losses == nil {
			losses = log
		}
		require.Equal(t, losses, log, name)
	}
}

// lossOf returns the loss of a model on the rows.
func (s *realSet) lossOf(t *testing.T, model string, more ...string) float64 {
	t.Helper()
	var r evalResult
	okJSON(t, &r, slices.Concat([]string{"eval", "--model", model, "--data", s.path(), "--max-seq-length", "256"}, s.flags, more)...)
	return r.Loss
}

// TestRealDataThroughEverything trains, stops and goes on, makes everything of the result,
// and uses what was made: in eval, in generate, in chat, and a chat again in training.
func TestRealDataThroughEverything(t *testing.T) {
	for _, s := range realSets {
		t.Run(s.name, func(t *testing.T) {
			dir := workspace(t)
			model := s.model(t, dir)
			whole, out := filepath.Join(dir, "whole"), filepath.Join(dir, "out")
			ok(t, s.trainOn(model, s.path(), whole, "--save-every", "2")...)

			// As if it had been killed after the second step.
			ok(t, s.trainOn(model, s.path(), out, "--save-every", "2")...)
			require.NoError(t, os.RemoveAll(filepath.Join(out, "checkpoint-3")))
			var r trainResult
			okJSON(t, &r, s.trainOn(model, s.path(), out, "--save-every", "2", "--resume", out, "--export", "merged,gguf:q8_0,adapter-gguf")...)
			require.True(t, readFile(t, filepath.Join(whole, "adapter_model.safetensors")) == readFile(t, filepath.Join(out, "adapter_model.safetensors")))

			before, beside := s.lossOf(t, model), s.lossOf(t, model, "--adapter", out)
			require.Less(t, beside, before-0.01, "something was learnt")
			require.Len(t, r.Exports, 3)
			for i, within := range map[string]float64{"merged": 0.02, "gguf:q8_0": 0.05, "adapter-gguf": 1e-5} {
				x := r.Exports[slices.IndexFunc(r.Exports, func(x exportResult) bool { return x.Spec == i })]
				require.Empty(t, x.Error)
				loss := 0.0
				if strings.HasPrefix(x.Spec, "adapter") {
					loss = s.lossOf(t, model, "--adapter", x.Out)
				} else {
					loss = s.lossOf(t, x.Out)
				}
				require.InDelta(t, beside, loss, within, x.Spec)
			}

			// The adapter has its say in what is written.
			with := []string{"--model", model, "--adapter", "tuned=" + out}
			if !s.chat {
				with = append(with, "--chat-template", "chatml")
			}
			saved := filepath.Join(dir, "saved.jsonl")
			answers := chatted(t, []string{"Who is Tom?", "Why?", "/save " + saved, "/clear", "What is red?", "/save " + saved}, append(with, "--max-tokens", "8", "--temperature", "0")...)
			require.Len(t, answers, 3)
			require.Equal(t, "tuned", answers[0].Adapter)
			var g generateResult
			okJSON(t, &g, "generate", "--model", model, "--adapter", out, "--prompt", "Who is Tom?", "--max-tokens", "8", "--temperature", "0", "--chat", "--chat-template", map[bool]string{true: "default", false: "chatml"}[s.chat])
			require.Equal(t, g.Tokens, answers[0].Tokens)

			// What was said is data of its own.
			again := realSet{name: "saved", chat: true}
			var more []string
			if !s.chat {
				more = []string{"--chat-template", "chatml"}
			}
			ok(t, again.trainOn(model, saved, filepath.Join(dir, "again"), append(more, "--iters", "2", "--adapter", out)...)...)
		})
	}
}

// rendered returns the text of the first example of a file, as data check shows it, and the
// parts of it that are trained.
func rendered(t *testing.T, model, file string, more ...string) (text string, trained []string) {
	t.Helper()
	// What the doctor has to say of a template that is not the model's is not asked.
	o := nibble(t, append([]string{"data", "check", "--model", model, "--data", file, "--show", "1", "--json"}, more...)...)
	var r dataCheckResult
	require.NoError(t, json.Unmarshal([]byte(o.stdout), &r), o.stderr)
	require.Len(t, r.Examples, 1)
	var last bool
	for _, p := range r.Examples[0].Text {
		text += p.Text
		if p.Trained && last {
			trained[len(trained)-1] += p.Text
		} else if p.Trained {
			trained = append(trained, p.Text)
		}
		last = p.Trained
	}
	return text, trained
}

// TestChatAsksAsTrainingHas holds what chat and generate ask a model against what training
// showed it.
func TestChatAsksAsTrainingHas(t *testing.T) {
	dir := workspace(t)
	s := realSet{chat: true}
	model := s.model(t, dir)
	for _, template := range []string{"", "chatml", "llama3", "zephyr", "phi3"} {
		var flags []string
		if template != "" {
			flags = []string{"--chat-template", template}
		}
		file := filepath.Join(dir, template+".jsonl")
		answers := chatted(t, []string{"Who is Tom?", "Why?", "/save " + file}, append([]string{"--model", model, "--max-tokens", "6", "--temperature", "0", "--system", "Be brief."}, flags...)...)
		text, trained := rendered(t, model, file, flags...)
		require.Len(t, trained, 2, text)
		for i, a := range answers {
			// Some templates take away the space around a turn.
			require.True(t, strings.HasPrefix(strings.TrimSpace(trained[i]), strings.TrimSpace(a.Content)), "%s: %q of %q", template, a.Content, trained[i])
		}
		var g generateResult
		okJSON(t, &g, append([]string{"generate", "--model", model, "--prompt", "Who is Tom?", "--max-tokens", "6", "--temperature", "0", "--system", "Be brief.", "--chat"}, flags...)...)
		require.Equal(t, answers[0].Tokens, g.Tokens)
		asked, _, _ := strings.Cut(text, trained[0])
		require.Equal(t, asked, g.Prompt, template)
	}
}

// TestPackedLossesAreTheSame puts all rows into one step, packed and not: loss and gradient
// are the same, and so is what comes of the step.
func TestPackedLossesAreTheSame(t *testing.T) {
	for _, s := range realSets {
		t.Run(s.name, func(t *testing.T) {
			dir := workspace(t)
			model := s.model(t, dir)
			train := func(out string, more ...string) []string {
				return s.trainOn(model, s.path(), filepath.Join(dir, out), append([]string{"--iters", "2", "--overlong", "drop", "--max-seq-length", map[bool]string{true: "256", false: "512"}[s.chat]}, more...)...)
			}
			dry := slices.DeleteFunc(train("dry", "--packing", "--dry-run"), func(a string) bool { return a == "--quiet" })
			o := nibble(t, dry...)
			require.Equal(t, exitDone, o.code, "%v %s", dry, o.stderr)
			notes := o.stdout
			packs, examples := regexpNumber(t, notes, `packed into (\d+) examples`), regexpNumber(t, notes, `(\d+) examples, `)
			require.Less(t, packs, examples)
			run := func(out string, more ...string) []map[string]any {
				ok(t, train(out, more...)...)
				return logWithoutTimes(t, filepath.Join(dir, out, "trainer_log.jsonl"))
			}
			packed := run("packed", "--packing", "--batch-size", itoa(packs))
			apart := run("apart", "--batch-size", itoa(examples))
			for i := range 2 {
				require.Equal(t, apart[i]["num_tokens"], packed[i]["num_tokens"], "the same tokens are trained")
				require.InDelta(t, apart[i]["loss"], packed[i]["loss"], 1e-5)
				require.InEpsilon(t, apart[i]["grad_norm"], packed[i]["grad_norm"], 1e-4)
			}
		})
	}
}

// TestTrainWarnsOfEndlessAnswers has a template that never ends a turn.
func TestTrainWarnsOfEndlessAnswers(t *testing.T) {
	dir := workspace(t)
	put(t, filepath.Join(dir, "chat.jsonl"), chatRow)
	for name, warns := range map[string]bool{"good": false, "no end": true} {
		put(t, filepath.Join(dir, "chat.jinja"), chatTemplates[name])
		out := ok(t, "train", "--model", filepath.Join(dir, "stories260K"), "--data", filepath.Join(dir, "chat.jsonl"), "--chat-template", filepath.Join(dir, "chat.jinja"),
			"--output-dir", filepath.Join(dir, "out"), "--dry-run")
		require.Equal(t, warns, strings.Contains(out, "warning: end of text:"), "%s\n%s", name, out)
	}
	// The doctor looks at what train would make of the rows.
	long := `{"text": "` + strings.Repeat("Once upon a time. ", 200) + `"}`
	put(t, filepath.Join(dir, "long.jsonl"), long)
	require.Contains(t, nibble(t, "data", "check", "--model", filepath.Join(dir, "stories260K"), "--data", filepath.Join(dir, "long.jsonl"), "--show", "0").stdout, "1 of 1 (100%) examples have more than 512 tokens")
}
