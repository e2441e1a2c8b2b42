package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/train"
)

// stateOf reads the state of a checkpoint.
func stateOf(t *testing.T, dir string) (s train.State) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(readFile(t, filepath.Join(dir, stateName))), &s))
	return s
}

// TestBestModelAtEnd has a run that overfits give back its best weights, whatever is
// removed on the way, and the same when it was killed.
func TestBestModelAtEnd(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	put(t, filepath.Join(dir, "data/valid.jsonl"), `{"prompt": "Lily went", "completion": " to the park. She was happy to play with her friends."}`+"\n")
	flags := []string{"--iters", "40", "--learning-rate", "2e-2", "--save-total-limit", "2", "--save-every", "8", "--steps-per-eval", "2", "--dropout", "0",
		"--early-stopping-patience", "4", "--load-best-model-at-end", "--sample-prompt", "Once upon", "--sample-max-tokens", "3", "--quiet"}
	var r trainResult
	okJSON(t, &r, trainIn(dir, "out", flags...)...)
	require.Contains(t, r.Stopped, "in 4 evaluations in a row")
	require.Less(t, r.Steps, 40)
	require.True(t, r.Loaded)
	require.Equal(t, r.Steps-8, r.BestStep)
	require.Less(t, *r.Best, *r.Eval)
	require.InDelta(t, *r.Best, validLoss(t, dir, "stories260K", "--adapter", filepath.Join(dir, "out")), 1e-5)
	list, err := savedIn(filepath.Join(dir, "out"))
	require.NoError(t, err)
	require.Equal(t, []int{r.BestStep, r.Steps}, []int{list[0].step, list[1].step}, "the best and the last")
	require.Equal(t, r.BestStep, stateOf(t, list[1].path).BestStep)
	require.True(t, readFile(t, filepath.Join(list[0].path, peft.WeightsName)) == readFile(t, filepath.Join(dir, "out", peft.WeightsName)))
	require.Contains(t, readFile(t, filepath.Join(dir, "out", "README.md")), "the result is that of step")

	// A run that is stopped in between and goes on ends the same.
	okJSON(t, &r, trainIn(dir, "again", append(flags, "--iters", "6", "--lr-scheduler-type", "constant", "--warmup-steps", "0")...)...)
	more := append(flags, "--lr-scheduler-type", "constant", "--warmup-steps", "0")
	okJSON(t, &r, trainIn(dir, "again", append(more, "--resume", filepath.Join(dir, "again"))...)...)
	okJSON(t, &r, trainIn(dir, "whole", more...)...)
	require.Equal(t, readFile(t, filepath.Join(dir, "whole", peft.WeightsName)) == readFile(t, filepath.Join(dir, "again", peft.WeightsName)), true)

	// Without the checkpoint that would be the result, a run does not go on to no end.
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "whole", checkpointName+"8")))
	last, err := lastCheckpoint(filepath.Join(dir, "whole"))
	require.NoError(t, err)
	if best := stateOf(t, last).BestStep; best != stateOf(t, last).Step {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "whole", checkpointName+itoa(best))))
		o := nibble(t, trainIn(dir, "whole", append(more, "--resume", filepath.Join(dir, "whole"))...)...)
		require.NotEqual(t, exitDone, o.code)
		require.Contains(t, o.stderr, "the best checkpoint so far is of step")
	}
}

func TestPruneKeepsTheBest(t *testing.T) {
	for _, c := range []struct {
		limit, best int
		want        []int
	}{
		{0, 0, []int{1, 2, 3, 4, 5}}, {0, 2, []int{1, 2, 3, 4, 5}}, {1, 0, []int{5}}, {2, 0, []int{4, 5}},
		{1, 2, []int{2, 5}}, {2, 2, []int{2, 5}}, {3, 2, []int{2, 4, 5}}, {2, 5, []int{4, 5}}, {3, 7, []int{3, 4, 5}},
	} {
		dir := t.TempDir()
		for _, n := range []int{1, 2, 3, 4, 5, 6} {
			put(t, filepath.Join(dir, checkpointName+itoa(n), stateName), "{}")
		}
		require.NoError(t, (&trainOutput{dir: dir}).prune(5, c.limit, c.best))
		list, err := savedIn(dir)
		require.NoError(t, err)
		var got []int
		for _, s := range list {
			got = append(got, s.step)
		}
		require.Equal(t, c.want, got, "limit %d, best %d", c.limit, c.best)
	}
}

// TestSamplesOfARun are in the log, before, on the way and after, and change nothing of
// what is trained.
func TestSamplesOfARun(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	put(t, filepath.Join(dir, "prompts"), "Once upon\n\n\"One day\\na\"\n")
	ok(t, trainIn(dir, "off", "--quiet")...)
	ok(t, trainIn(dir, "on", "--quiet", "--sample-prompts", filepath.Join(dir, "prompts"), "--sample-prompt", "Lily", "--sample-every", "6", "--sample-max-tokens", "8")...)
	for _, file := range []string{peft.WeightsName, "checkpoint-12/optimizer.safetensors", "checkpoint-8/" + peft.WeightsName} {
		require.True(t, readFile(t, filepath.Join(dir, "off", file)) == readFile(t, filepath.Join(dir, "on", file)), file)
	}
	log, err := readLog(filepath.Join(dir, "on", logName))
	require.NoError(t, err)
	var steps []int
	for _, r := range log {
		if r.Samples == nil {
			continue
		}
		steps = append(steps, r.Step)
		require.Len(t, r.Samples, 3)
		require.Equal(t, []string{"Lily", "Once upon", "One day\na"}, []string{r.Samples[0].Prompt, r.Samples[1].Prompt, r.Samples[2].Prompt})
	}
	require.Equal(t, []int{0, 6, 12}, steps)
	// Before the training it is what generate says.
	require.Equal(t, "Once upon"+log[0].Samples[1].Text, strings.TrimSuffix(ok(t, "generate", "--model", filepath.Join(dir, "stories260K"), "--prompt", "Once upon", "--max-tokens", "8"), "\n"))

	o := nibble(t, trainIn(dir, "shown", "--sample-prompt", "Once\x1b upon")...)
	require.Equal(t, exitDone, o.code)
	require.Contains(t, o.stderr, "step 0/12  validation loss")
	require.Contains(t, o.stderr, "perplexity")
	require.Contains(t, o.stderr, "step 12/12  sample  Once\ufffd upon\u2502")
	require.NotContains(t, o.stderr, "\x1b")

	// A list in a file of settings keeps its elements as they are.
	put(t, filepath.Join(dir, "c.yaml"), "sample_prompt: ['a, b', c]\nexport: [merged]\n")
	var dry struct {
		Config struct {
			Prompts []string `json:"sample_prompts"`
		}
	}
	okJSON(t, &dry, trainIn(dir, "x", "--config", filepath.Join(dir, "c.yaml"), "--dry-run")...)
	require.Equal(t, []string{"a, b", "c"}, dry.Config.Prompts)
}

// TestSaveOnDemand has somebody ask for a checkpoint while a run goes on.
func TestSaveOnDemand(t *testing.T) {
	out := &trainOutput{dir: t.TempDir()}
	require.False(t, out.asked())
	put(t, filepath.Join(out.dir, saveName), "")
	require.True(t, out.asked())
	require.False(t, out.asked(), "once")
}

// TestDryRunShowsTheRun has the example, the time and the exports.
func TestDryRunShowsTheRun(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	args := trainIn(dir, "out", "--dry-run", "--export", "gguf:q8_0,adapter-gguf", "--sample-prompt", "Once")
	var r struct {
		Steps   int
		Seconds float64
		Example struct {
			Tokens  []int
			Trained []bool
			Text    string
			Marked  string
		}
		Exports []struct {
			Export string
			Bytes  int64
		}
	}
	okJSON(t, &r, args...)
	require.Equal(t, 12, r.Steps)
	require.Positive(t, r.Seconds)
	require.Equal(t, "One day a dog saw a big dog and said hello.", r.Example.Text)
	require.Contains(t, r.Example.Marked, "One day a dog\u27e6 saw a big dog and said hello.")
	require.Len(t, r.Example.Trained, len(r.Example.Tokens))
	require.False(t, r.Example.Trained[0])
	require.True(t, r.Example.Trained[len(r.Example.Tokens)-1])
	require.Len(t, r.Exports, 2)
	require.Greater(t, r.Exports[0].Bytes, int64(260_000))
	text := ok(t, args...)
	for _, want := range []string{"the run: 12 steps", "at most about", "export gguf:q8_0: works", "trainable: ", "chat template: none", "loss on"} {
		require.Contains(t, text, want)
	}
	require.NoDirExists(t, filepath.Join(dir, "out"))
}

// TestModelCardOfARun says what it was made of and gives nothing away.
func TestModelCardOfARun(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	ok(t, trainIn(dir, "out", "--quiet", "--sample-prompt", "My secret is")...)
	card := readFile(t, filepath.Join(dir, "out", "README.md"))
	require.True(t, strings.HasPrefix(card, "---\nlibrary_name: peft\npipeline_tag: text-generation\nbase_model:\n- stories260K\nbase_model_relation: adapter\ntags:\n- base_model:adapter:stories260K\n- lora\n- nibble\n---\n"), card)
	for _, want := range []string{"| training data | train.jsonl: 9 examples,", "LoRA, rank 2, alpha 4, dropout 0.1", "| steps | 12, with 2 x 1 examples", "| validation loss |", "nibble train ", "--model stories260K", "learning rate 0.01"} {
		require.Contains(t, card, want)
	}
	require.NotContains(t, card, dir)
	require.NotContains(t, card, "secret")
}

// TestSamplesOfChats has prompts said by the user where the data is chats.
func TestSamplesOfChats(t *testing.T) {
	dir := workspace(t)
	template := `{% for m in messages %}{{ bos_token if loop.first }}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}`
	put(t, filepath.Join(dir, "chat.jinja"), template)
	put(t, filepath.Join(dir, "data/train.jsonl"), `{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}`+"\n")
	args := trainIn(dir, "out", "--chat-template", filepath.Join(dir, "chat.jinja"), "--sample-prompt", "Who?", "--sample-max-tokens", "6", "--quiet", "--max-seq-length", "64", "--iters", "2")
	ok(t, args...)
	log, err := readLog(filepath.Join(dir, "out", logName))
	require.NoError(t, err)
	m, err := openModel(filepath.Join(dir, "stories260K"))
	require.NoError(t, err)
	defer m.Close()
	v, tok, err := m.tokenizer()
	require.NoError(t, err)
	o := trainOptions{}
	o.template = filepath.Join(dir, "chat.jinja")
	talk := &talk{chats: true, bos: "<s>", eos: "</s>"}
	talk.template, err = o.chatTemplate(m, v)
	require.NoError(t, err)
	prompt, err := o.prompt("Who?", talk, v, tok)
	require.NoError(t, err)
	require.Equal(t, []int32{v.BOS}, prompt[:1])
	require.NotEqual(t, v.BOS, prompt[1], "one beginning")
	require.Contains(t, prompt, v.EOS)
	require.Contains(t, tok.Decode(prompt), "assistant:")
	require.NotEmpty(t, log[0].Samples[0].Text)
	require.Equal(t, "Who?", log[0].Samples[0].Prompt)
	text := ok(t, append(args, "--dry-run", "--output-dir", filepath.Join(dir, "dry"))...)
	require.Contains(t, text, "\u27e6")
	from := &trainOptions{dataFlags: dataFlags{paths: []string{filepath.Join(dir, "data")}, packing: noPacking, rowFlags: rowFlags{template: o.template, overlong: "truncate"}}, Config: train.DefaultConfig()}
	opt, err := from.rowFlags.options(m, tok, from.MaxSeqLength)
	require.NoError(t, err)
	set, err := (&app{quiet: true}).openData(from, opt)
	require.NoError(t, err)
	defer set.Close()
	told, err := o.talk(m, v, set)
	require.NoError(t, err)
	require.True(t, told.chats && told.given)
	require.Contains(t, text, "chat template: there is one")
}
