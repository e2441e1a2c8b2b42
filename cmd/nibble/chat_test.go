package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// nibbleReading runs a command with lines on its standard input.
func nibbleReading(t *testing.T, input string, args ...string) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(binary, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		require.NoError(t, err)
	}
	return output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// chatted returns the answers of a chat over lines.
func chatted(t *testing.T, lines []string, args ...string) []chatAnswer {
	t.Helper()
	o := nibbleReading(t, strings.Join(lines, "\n")+"\n", append([]string{"chat", "--json"}, args...)...)
	require.Equal(t, exitDone, o.code, o.stderr)
	var out []chatAnswer
	for line := range strings.Lines(o.stdout) {
		var a chatAnswer
		require.NoError(t, json.Unmarshal([]byte(line), &a), line)
		require.Equal(t, "assistant", a.Role)
		out = append(out, a)
	}
	return out
}

func contents(list []chatAnswer) (out []string) {
	for _, a := range list {
		out = append(out, a.Content)
	}
	return out
}

func ofFamily(name string) string { return filepath.Join(goldens, "families", name) }

// greedy are the flags that take the most likely token whatever a model's files say.
var greedy = []string{"--temp", "0", "--repetition-penalty", "1"}

// Conversations are those of transformers, with the cache kept from message to message;
// from the directory and, where that splits text in the same way, from its GGUF file.
func TestChatIsTransformers(t *testing.T) {
	var golden map[string][]struct {
		User, Text string
		Prompt     int `json:"prompt_tokens"`
		Tokens     []int32
		Ended      bool
	}
	require.NoError(t, json.Unmarshal([]byte(readFile(t, "testdata/chat/turns.json")), &golden))
	require.Len(t, golden, 6)
	for _, name := range slices.Sorted(maps.Keys(golden)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "m.gguf")
			models := []string{ofFamily(name)}
			// Around special tokens SentencePiece in GGUF is llama.cpp's.
			if strings.HasPrefix(name, "qwen2") {
				ok(t, "convert", ofFamily(name), file, "--outtype", "f32")
				models = append(models, file)
			}
			var lines []string
			for _, turn := range golden[name] {
				lines = append(lines, turn.User)
			}
			for _, model := range models {
				got := chatted(t, lines, append([]string{"--model", model, "--max-tokens", "12"}, greedy...)...)
				require.Len(t, got, len(lines))
				for i, want := range golden[name] {
					require.Equal(t, want.Prompt, got[i].Reused+got[i].Read, "turn %d", i)
					require.Equal(t, want.Tokens, got[i].Tokens, "turn %d", i)
					require.Equal(t, want.Text, got[i].Content, "turn %d", i)
					require.Equal(t, want.Ended, got[i].Stopped == stoppedEnd, "turn %d", i)
					if i > 0 {
						require.Positive(t, got[i].Reused)
					}
				}
			}
		})
	}
}

// An adapter that is switched to is one that was there from the start.
func TestChatAdapters(t *testing.T) {
	base, lora := ofFamily("qwen2"), filepath.Join(goldens, "families/adapters/qwen2-lora")
	dir := t.TempDir()
	file := filepath.Join(dir, "a.gguf")
	ok(t, "convert", lora, file, "--base", base, "--outtype", "f32")
	flags := append([]string{"--model", base, "--max-tokens", "10"}, greedy...)
	alone := contents(chatted(t, []string{"Hello", "And more"}, flags...))
	with := contents(chatted(t, []string{"Hello", "And more"}, append(flags, "--adapter", lora)...))
	require.NotEqual(t, alone, with)
	got := chatted(t, []string{
		"Hello", "/adapter none", "/reset", "Hello", "And more", "/adapter other", "/reset", "Hello", "And more", "/adapter nobody", "/adapter qwen2-lora", "/regenerate",
	}, append(flags, "--adapter", lora, "--adapter", "other="+file)...)
	require.Equal(t, []string{with[0], alone[0], alone[1], with[0], with[1], with[1]}, contents(got))
	require.Zero(t, got[5].Reused, "keys and values are another adapter's")
	require.Equal(t, "qwen2-lora", got[0].Adapter)
	require.Empty(t, got[1].Adapter)
	require.Equal(t, "other", got[3].Adapter)

	o := nibbleReading(t, "", append([]string{"chat", "--model", base}, "--adapter", lora, "--adapter", "qwen2-lora="+file)...)
	require.Equal(t, exitUsage, o.code)
	require.Contains(t, o.stderr, "NAME=DIR")
}

func TestChatCommands(t *testing.T) {
	flags := append([]string{"--model", ofFamily("qwen2"), "--max-tokens", "8"}, greedy...)
	plain := contents(chatted(t, []string{"One", "Two"}, flags...))
	briefly := contents(chatted(t, []string{"One"}, append(flags, "--system", "Be brief.")...))
	require.NotEqual(t, plain[0], briefly[0])
	path := filepath.Join(t.TempDir(), "saved.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(`{"messages":[]}`), 0o600)) // without the line's end
	got := chatted(t, []string{
		"One", "Wrong", "/undo", "Two", "/save " + path,
		"/system Be brief.", "One", "/save " + path, "/reset", "One",
		"/system", "One", "", "   ",
		`"""`, "Several", "lines", `"""`, "/undo", "/undo", "/undo", "/nothing", "/set", "/set nothing 3", "/set top_k -1", "/set temp x",
		"/set temp 1", "/set seed 7", "One", "/regenerate", "/regenerate", "/help", "/quit", "Never",
	}, flags...)
	var list []string
	for _, a := range got {
		list = append(list, a.Content)
	}
	require.Len(t, got, 10)
	require.Equal(t, []string{plain[0], plain[1], briefly[0], briefly[0], plain[0]}, []string{list[0], list[2], list[3], list[4], list[5]})
	require.NotEqual(t, list[7], list[8], "each answer has a seed of its own")
	require.NotEqual(t, list[8], list[9])
	require.Equal(t, 8, len(got[7].Tokens))

	lines := strings.Split(strings.TrimSpace(readFile(t, path)), "\n")
	require.Len(t, lines, 3)
	var saved struct{ Messages []message }
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &saved))
	require.Equal(t, []message{{"user", "One"}, {"assistant", plain[0]}, {"user", "Two"}, {"assistant", plain[1]}}, saved.Messages)
	require.NoError(t, json.Unmarshal([]byte(lines[2]), &saved))
	require.Equal(t, []message{{"system", "Be brief."}, {"user", "One"}, {"assistant", briefly[0]}}, saved.Messages)

	// A run with the same seed says the same.
	hot := append(slices.Clone(flags[:4]), "--temp", "1", "--seed", "7")
	require.Equal(t, contents(chatted(t, []string{"One", "Two"}, hot...)), contents(chatted(t, []string{"One", "Two"}, append(hot, "--threads", "1")...)))

	// A pipe has the answers and nothing else.
	o := nibbleReading(t, "One\nTwo\n", append([]string{"chat"}, flags...)...)
	require.Equal(t, plain[0]+"\n"+plain[1]+"\n", o.stdout)
	require.Contains(t, o.stderr, "/s;")
	o = nibbleReading(t, "One", append([]string{"chat", "-q"}, flags...)...)
	require.Equal(t, plain[0]+"\n", o.stdout)
	require.Empty(t, o.stderr)
}

// A full context loses its oldest messages, and says so; a message that has no room is
// refused and the conversation goes on.
func TestChatContextIsFull(t *testing.T) {
	flags := append([]string{"--model", ofFamily("qwen2"), "--max-tokens", "8", "--context", "90", "--system", "Be brief."}, greedy...)
	long := strings.Repeat("again and again ", 30)
	got := chatted(t, []string{"First message", "Second message", "Third message", "Fourth message", long, "Fifth"}, flags...)
	require.Len(t, got, 5)
	dropped := 0
	for _, a := range got {
		dropped += a.Dropped
		require.LessOrEqual(t, a.Context, 90)
	}
	require.Positive(t, dropped)
	require.Zero(t, dropped%2, "a message goes with its answer")
	o := nibbleReading(t, "One\n"+long+"\nTwo\nThree\nFour\nFive\n", append([]string{"chat"}, flags...)...)
	require.Equal(t, exitDone, o.code)
	require.Contains(t, o.stderr, "the context has 90")
	require.Contains(t, o.stderr, "the oldest 2 messages are dropped")
	require.Equal(t, 5, strings.Count(o.stderr, "/s; "))

	o = nibble(t, "chat", "--model", ofFamily("qwen2"), "--context", "257")
	require.Equal(t, exitInput, o.code)
	require.Contains(t, o.stderr, "context is 256")
}

func TestChatTemplates(t *testing.T) {
	base := filepath.Join(workspace(t), "stories260K")
	o := nibble(t, "chat", "--model", base)
	require.Equal(t, exitInput, o.code)
	require.Contains(t, o.stderr, "no chat template")
	require.Contains(t, o.stderr, "--chat-template")
	require.Len(t, chatted(t, []string{"Hello"}, "--model", base, "--max-tokens", "3", "--chat-template", "chatml"), 1)
	o = nibble(t, "chat", "--model", base, "--chat-template", "nothing")
	require.Equal(t, exitUsage, o.code)
	require.Contains(t, o.stderr, "no such file")

	file := filepath.Join(t.TempDir(), "t.jinja")
	require.NoError(t, os.WriteFile(file, []byte("{% for m in messages %}{{ m.content }}{% endfor %}"), 0o600))
	var want, got generateResult
	okJSON(t, &want, "generate", "--model", base, "--prompt", "Once upon a time", "--max-tokens", "20")
	okJSON(t, &got, "generate", "--model", base, "--prompt", "Once upon a time", "--max-tokens", "20", "--chat-template", file)
	require.Equal(t, want.PromptTokens, got.PromptTokens, "with a bos")
	require.Equal(t, strings.TrimPrefix(want.Text, " "), got.Text)
	require.Equal(t, []string{got.Text}, contents(chatted(t, []string{"Once upon a time"}, "--model", base, "--max-tokens", "20", "--chat-template", file)))
	require.NoError(t, os.WriteFile(file, []byte("{{ bos_token }}{% for m in messages %} {{ m.content }}{% endfor %}"), 0o600))
	okJSON(t, &got, "generate", "--model", base, "--prompt", "Once upon a time", "--max-tokens", "20", "--chat-template", file)
	require.Equal(t, "<s> Once upon a time", got.Prompt)
	require.Equal(t, want.PromptTokens, got.PromptTokens, "with one bos, the template's")

	require.NoError(t, os.WriteFile(file, []byte("{{ raise_exception('no ' + messages[0].role) }}"), 0o600))
	o = nibbleReading(t, "Hello\nHello\n", "chat", "--model", base, "--chat-template", file)
	require.Equal(t, exitDone, o.code)
	require.Equal(t, 2, strings.Count(o.stderr, "no user"), o.stderr)
	require.NoError(t, os.WriteFile(file, []byte("{% for %}"), 0o600))
	o = nibble(t, "chat", "--model", base, "--chat-template", file)
	require.Equal(t, exitInput, o.code, o.stderr)

	// Without a template a conversation is a text.
	a := chatted(t, []string{"Once upon a time"}, "--model", base, "--max-tokens", "20", "--ignore-chat-template")
	okJSON(t, &want, "generate", "--model", base, "--prompt", "Once upon a time\n", "--max-tokens", "20")
	require.Equal(t, want.Text, a[0].Content)
}

// endless is a model that goes on for long.
func endless(t *testing.T) string {
	dir := filepath.Join(workspace(t), "stories260K")
	path := filepath.Join(dir, "config.json")
	config := readFile(t, path)
	require.Contains(t, config, `"max_position_embeddings": 512`)
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(config, `"max_position_embeddings": 512`, `"max_position_embeddings": 200000`, 1)), 0o600))
	return dir
}

// Ctrl-C stops an answer, and the next one leaves.
func TestChatInterrupted(t *testing.T) {
	cmd := exec.Command(binary, "chat", "--model", endless(t), "--ignore-chat-template", "--max-tokens", "100000", "--context", "200000", "--stop", "nothing says this")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := os.Create(filepath.Join(t.TempDir(), "answers"))
	require.NoError(t, err)
	defer out.Close()
	cmd.Stdout = out
	messages, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
	notes := bufio.NewScanner(messages)
	until := func(text string) string {
		said := ""
		for notes.Scan() {
			said += notes.Text() + "\n"
			if strings.Contains(notes.Text(), text) {
				return notes.Text()
			}
		}
		t.Fatalf("%q was not said; last: %s", text, said)
		return ""
	}
	for range 2 {
		before, err := out.Stat()
		require.NoError(t, err)
		_, err = io.WriteString(in, "Once upon a time\n")
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			st, err := out.Stat()
			return err == nil && st.Size() > before.Size()+50
		}, time.Minute, time.Millisecond)
		require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
		require.NotContains(t, until("/s; "), "stopped at")
	}
	_, err = io.WriteString(in, "/undo\n")
	require.NoError(t, err)
	until("taken back: Once upon")
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	until("again")
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	until("interrupted")
	_ = cmd.Wait()
	require.Equal(t, exitInterrupted, cmd.ProcessState.ExitCode())
}

// Ctrl-C ends generate with what there is.
func TestGenerateInterrupted(t *testing.T) {
	var stdout bytes.Buffer
	cmd := exec.Command(binary, "generate", "--model", endless(t), "--prompt", "Once", "--max-tokens", "100000", "--json")
	cmd.Stdout = &stdout
	require.NoError(t, cmd.Start())
	defer time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
	time.Sleep(700 * time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	_ = cmd.Wait()
	require.Equal(t, exitInterrupted, cmd.ProcessState.ExitCode())
	if stdout.Len() > 0 { // else it was not that far
		var r generateResult
		require.NoError(t, json.Unmarshal(stdout.Bytes(), &r))
		require.Equal(t, stoppedInterrupted, r.Stopped)
		require.Less(t, len(r.Tokens), 100000)
	}
}

func TestGenerateFlags(t *testing.T) {
	base := filepath.Join(workspace(t), "stories260K")
	run := func(args ...string) (r generateResult) {
		okJSON(t, &r, append([]string{"generate", "--model", base, "--max-tokens", "30"}, args...)...)
		return r
	}
	want := run("--prompt", "Once upon a time")
	require.Equal(t, "the most likely token", want.Sampling)

	// The prompt may be in a file or on standard input.
	path := filepath.Join(t.TempDir(), "p.txt")
	require.NoError(t, os.WriteFile(path, []byte("Once upon a time"), 0o600))
	require.Equal(t, want.Text, run("--prompt-file", path).Text)
	for _, more := range [][]string{nil, {"--prompt-file", "-"}} {
		o := nibbleReading(t, "Once upon a time\n", append([]string{"generate", "--model", base, "--max-tokens", "30"}, more...)...)
		require.Equal(t, want.Prompt+want.Text+"\n", o.stdout)
		require.Empty(t, o.stderr)
	}

	// What it stops at is not printed, wherever tokens end.
	require.Contains(t, want.Text, "little girl")
	before, _, _ := strings.Cut(want.Text, "ttle gi")
	got := run("--prompt", "Once upon a time", "--stop", "zzz", "--stop", "ttle gi")
	require.Equal(t, before, got.Text)
	require.Equal(t, stoppedStop, got.Stopped)
	require.Less(t, len(got.Tokens), len(want.Tokens))
	o := nibble(t, "generate", "--model", base, "--prompt", "Once upon a time", "--stop", "ttle gi")
	require.Equal(t, "Once upon a time"+before+"\n", o.stdout)

	// Samples have seeds one after another.
	three := run("--prompt", "Once", "--temp", "1", "--seed", "5", "--num-samples", "3")
	require.Len(t, three.Samples, 3)
	for i, s := range three.Samples {
		require.Equal(t, s.Text, run("--prompt", "Once", "--temp", "1", "--seed", strconv.Itoa(5+i)).Text)
	}
	require.Equal(t, run("--prompt", "Once").Text, run("--prompt", "Once", "--temp", "1", "--top-k", "1").Text)
	require.Equal(t, run("--prompt", "Once").Text, run("--prompt", "Once", "--top-p", "0.01").Text)
	require.Equal(t, run("--prompt", "Once").Text, run("--prompt", "Once", "--temp", "3", "--min-p", "1").Text)
	require.NotEqual(t, run("--prompt", "Once").Text, run("--prompt", "Once", "--repetition-penalty", "1.5").Text)

	for _, bad := range [][]string{
		{"--prompt", "x", "--prompt-file", path}, {"--prompt", "x", "--temp", "-1"}, {"--prompt", "x", "--top-k", "-1"}, {"--prompt", "x", "--top-p", "1.5"}, {"--prompt", "x", "--min-p", "2"},
		{"--prompt", "x", "--repetition-penalty", "-1"}, {"--prompt", "x", "--stop", ""}, {"--prompt", "x", "--num-samples", "0"}, {"--prompt", "x", "--max-tokens", "-1"},
	} {
		o := nibble(t, append([]string{"generate", "--model", base}, bad...)...)
		require.Equal(t, exitUsage, o.code, "%v: %s", bad, o.stderr)
	}
}

// What generation_config.json says is done, and said; flags go before it. A GGUF file
// says it too.
func TestGenerationConfig(t *testing.T) {
	model := ofFamily("qwen2") // temperature 0.7, top-k 20, top-p 0.8, repetition penalty 1.05
	file := filepath.Join(t.TempDir(), "m.gguf")
	ok(t, "convert", model, file, "--outtype", "f32")
	run := func(args ...string) (r generateResult) {
		okJSON(t, &r, append([]string{"generate", "--prompt", "Hello", "--max-tokens", "20"}, args...)...)
		return r
	}
	said := []string{"--temperature", "0.7", "--top-k", "20", "--top-p", "0.8", "--repetition-penalty", "1.05"}
	want := run(append(said, "--model", model)...)
	require.NotEqual(t, want.Text, run(append(slices.Clone(greedy), "--model", model)...).Text)
	for _, m := range []string{model, file} {
		got := run("--model", m)
		require.Equal(t, want.Text, got.Text)
		require.Regexp(t, `^sampling repetition penalty 1.05, temperature 0.7, top-k 20, top-p 0.8 \(as \S+ says\)$`, got.Sampling)
		require.Regexp(t, `^sampling repetition penalty 1.05, top-k 20, top-p 0.8 \(as \S+ says\), temperature 0.5$`, run("--model", m, "--temp", "0.5").Sampling)
		require.Equal(t, "the most likely token", run(append(slices.Clone(greedy), "--model", m)...).Sampling)
		require.Contains(t, nibble(t, "generate", "--model", m, "--prompt", "Hello", "--max-tokens", "1").stderr, "temperature 0.7")
	}
}

// --memory is kept to, or refused with the number of tokens that fits, which does.
func TestGenerateInMemory(t *testing.T) {
	model := endless(t)
	run := func(max string, memory string) output {
		return nibble(t, "generate", "--model", model, "--prompt", "Once", "--max-tokens", max, "--memory", memory, "--stop", "a")
	}
	require.Equal(t, exitDone, run("10", "48MiB").code)
	o := run("150000", "48MiB")
	require.Equal(t, exitFailed, o.code)
	fits := regexpNumber(t, o.stderr, `hint: (\d+) tokens would fit`)
	require.Positive(t, fits)
	require.Equal(t, exitDone, run(strconv.Itoa(fits-1), "48MiB").code)
	require.Equal(t, exitFailed, run(strconv.Itoa(fits+200), "48MiB").code)
	o = run("10", "4MiB")
	require.Equal(t, exitFailed, o.code)
	require.Contains(t, o.stderr, "hint: give --memory")
	// A chat takes what there is.
	o = nibbleReading(t, "Once upon\n", "chat", "--model", model, "--ignore-chat-template", "--max-tokens", "3", "--memory", "48MiB")
	require.Equal(t, exitDone, o.code, o.stderr)
}

func regexpNumber(t *testing.T, text, pattern string) int {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	require.NotNil(t, m, text)
	n, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	return n
}

func TestStopper(t *testing.T) {
	for _, c := range []struct {
		stops      []string
		text, want string
		stopped    bool
	}{
		{[]string{"abc"}, "xxabcyy", "xx", true},
		{[]string{"abc", "xa"}, "xxabcyy", "x", true},
		{[]string{"aab"}, "aaaab", "aa", true},
		{[]string{"abab", "b"}, "aaba", "aa", true},
		{[]string{"abc"}, "xxab", "xxab", false},
		{[]string{"ß!"}, "aßß!", "aß", true},
		{nil, "all of it", "all of it", false},
	} {
		for split := 1; split <= len(c.text); split++ {
			s, got, stopped := &stopper{stops: c.stops}, "", false
			for at := 0; at < len(c.text) && !stopped; at += split {
				var show string
				show, stopped = s.next(c.text[at:min(len(c.text), at+split)])
				got += show
			}
			require.Equal(t, c.stopped, stopped, "%+v", c)
			if !stopped {
				got += s.flush()
			}
			require.Equal(t, c.want, got, "%+v by %d", c, split)
		}
	}
}

func TestGenerationSettings(t *testing.T) {
	read := func(text string) (*generationSettings, error) {
		s := &generationSettings{sampling: map[string]string{}}
		return s, s.read([]byte(text))
	}
	s, err := read(`{"do_sample": true, "temperature": 0.6, "top_k": 50, "eos_token_id": [1, 2], "x": {"y": []}, "min_p": null}`)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"temperature": "0.6", "top-k": "50"}, s.sampling)
	require.Equal(t, []int32{1, 2}, s.ends)
	s, err = read(`{"temperature": 0.6, "repetition_penalty": 1.1, "eos_token_id": 7}`)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"repetition-penalty": "1.1"}, s.sampling, "nothing is sampled without do_sample")
	require.Equal(t, []int32{7}, s.ends)
	s, err = read(`{"do_sample": true}`)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"temperature": "1"}, s.sampling)
	for _, bad := range []string{``, `[]`, `{"eos_token_id": "x"}`, `{"eos_token_id": [1.5]}`, `{"do_sample": 3}`, `{"repetition_penalty": "high"}`, `{`, `{"eos_token_id": 99999999999}`} {
		_, err := read(bad)
		require.Error(t, err, bad)
	}

	model := filepath.Join(t.TempDir(), "m")
	require.NoError(t, os.CopyFS(model, os.DirFS(ofFamily("qwen2"))))
	for _, text := range []string{`{"do_sample": true, "temperature": -1}`, `{"do_sample": true, "top_k": 1.5}`, `nothing`} {
		require.NoError(t, os.WriteFile(filepath.Join(model, "generation_config.json"), []byte(text), 0o600))
		o := nibble(t, "generate", "--model", model, "--prompt", "x")
		require.Equal(t, exitInput, o.code, text)
		require.Contains(t, o.stderr, "generation_config.json")
	}
}

func FuzzGenerationSettings(f *testing.F) {
	f.Add([]byte(`{"do_sample": true, "temperature": 0.6, "top_k": 50, "eos_token_id": [1, 2]}`))
	f.Add([]byte(`{"eos_token_id": 7, "repetition_penalty": 1e308}`))
	f.Add([]byte(`{"eos_token_id": [[]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := &generationSettings{sampling: map[string]string{}}
		if s.read(text) == nil {
			for _, v := range s.sampling {
				require.NotEmpty(t, v)
			}
		}
	})
}

func TestParseAdapter(t *testing.T) {
	for text, want := range map[string]adapterFlag{
		"runs/sql": {"sql", "runs/sql"}, "runs/sql/": {"sql", "runs/sql/"}, "x=runs/sql": {"x", "runs/sql"}, "a/b=c": {"b=c", "a/b=c"}, "x.gguf": {"x", "x.gguf"}, "=x": {"=x", "=x"},
	} {
		require.Equal(t, want, parseAdapter(text), text)
	}
}
