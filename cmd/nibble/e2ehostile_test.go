package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// refused runs a command that must not accept its data: it says where and what to do, in
// bounded time and memory.
func refused(t *testing.T, says string, args ...string) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	_ = cmd.Run()
	require.Equal(t, exitInput, cmd.ProcessState.ExitCode(), "%v\n%s", args, stderr.String())
	require.Contains(t, stderr.String(), says)
	require.Contains(t, stderr.String(), "\nhint: ")
	require.Less(t, stderr.Len(), 1500, "%s", stderr.String())
	require.NotContains(t, strings.TrimSuffix(stderr.String(), "\n"), "goroutine")
	require.Less(t, time.Since(start), 30*time.Second)
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && runtime.GOOS == "linux" {
		// A row may have 64 MiB, and is there more than once while it grows; how often
		// depends on when garbage is collected.
		require.Less(t, usage.Maxrss, int64(640<<10), "KiB at most")
	}
}

// endlessLine is a file of 1 GiB unpacked: a beginning and then one letter.
func endlessLine(t *testing.T, path, begin string) {
	t.Helper()
	pack := func(b []byte) []byte {
		var out bytes.Buffer
		w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
		require.NoError(t, err)
		_, err = w.Write(b)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return out.Bytes()
	}
	// Members that follow each other are one file.
	part := pack(bytes.Repeat([]byte("a"), 16<<20))
	require.NoError(t, os.WriteFile(path, append(pack([]byte(begin)), bytes.Repeat(part, 64)...), 0o600))
}

// TestHostileData gives train what was made to hurt it.
func TestHostileData(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	train := func(name string, more ...string) []string {
		return append([]string{"train", "--model", at("stories260K"), "--data", at(name), "--output-dir", at("out"), "--iters", "1", "--max-seq-length", "32"}, more...)
	}

	// 1 GiB in one row.
	for name, c := range map[string]struct{ begin, says string }{
		"line.jsonl.gz": {"{\"text\": \"a\"}\n{\"text\": \"", "line.jsonl.gz:2: malformed input: a line of more than 64 MiB"},
		"line.json.gz":  {"[{\"text\": \"a\"},\n{\"text\": \"", "line.json.gz:2: malformed input: a row of more than 64 MiB"},
		"line.csv.gz":   {"text\na\n\"", "line.csv.gz:3: malformed input: a row of more than 64 MiB"},
	} {
		endlessLine(t, at(name), c.begin)
		refused(t, c.says, train(name)...)
	}
	for name, says := range map[string]string{"zeros.jsonl": "zeros.jsonl:1: malformed input: a line of more than 64 MiB", "zeros.txt": "zeros.txt:1: malformed input: a NUL byte in text"} {
		put(t, at(name), "")
		require.NoError(t, os.Truncate(at(name), 1<<30)) // a hole, which takes no room
		refused(t, says, train(name)...)
	}

	// Nested, or not text.
	deep := strings.Repeat("[", 300000)
	for name, c := range map[string]struct{ text, says string }{
		"deep.jsonl":  {"{\"text\": \"a\"}\n{\"text\": " + deep + strings.Repeat("]", len(deep)) + "}\n", "deep.jsonl:2: malformed input: not JSON: exceeded max depth"},
		"deep.json":   {"[{\"text\": \"a\"},\n{\"text\": " + strings.Repeat(`{"a":`, 300000), "deep.json:2: malformed input: not JSON: exceeded max depth"},
		"open.json":   {deep, "open.json:1: malformed input"},
		"utf8.jsonl":  {"{\"text\": \"a\"}\n{\"text\": \"\xff\xfe\"}\n", "utf8.jsonl:2: malformed input: not JSON: invalid UTF-8"},
		"utf8.csv":    {"text\na\n\"b \xc3\x28\"\n", "utf8.csv:3: malformed input: text that is not UTF-8"},
		"utf8.txt":    {"Once\nupon \xff a time\n", "utf8.txt:2: malformed input: text that is not UTF-8"},
		"nul.jsonl":   {"{\"text\": \"a\"}\n{\"text\": \"b\x00c\"}\n", `nul.jsonl:2: malformed input: not JSON: invalid character '\x00'`},
		"nul.tsv":     {"text\na\nb\x00c\n", "nul.tsv:3: malformed input: a NUL byte in text"},
		"nul.txt":     {"Once\nupon\x00 a time\n", "nul.txt:2: malformed input: a NUL byte in text"},
		"half.jsonl":  {"{\"text\": \"a\"}\n{\"text\": \"\\ud800\"}\n", "half.jsonl:2: malformed input: not JSON: invalid surrogate"},
		"twice.jsonl": {"{\"text\": \"a\"}\n{\"text\": \"a\", \"text\": \"b\"}\n", `twice.jsonl:2: malformed input: not JSON: duplicate object member name "text"`},
	} {
		put(t, at(name), c.text)
		refused(t, c.says, train(name)...)
	}
	require.NoError(t, syscall.Mkfifo(at("pipe.jsonl"), 0o600))
	refused(t, "pipe.jsonl: unsupported input: not a file", train("pipe.jsonl")...)

	// Templates that do not end, or reach for what is not theirs.
	put(t, at("chat.jsonl"), chatRow)
	for name, c := range map[string]struct{ text, says string }{
		"loop":    {`{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}{% endfor %}{% endfor %}{% endfor %}`, "it loops, or doubles what it makes"},
		"grow":    {`{% set ns = namespace(x='aaaaaaaa') %}{% for a in range(200) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}`, "it loops, or doubles what it makes"},
		"big":     {`{{ 'a' * 10000000000 }}`, "it loops, or doubles what it makes"},
		"itself":  {`{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}`, "it calls itself without end"},
		"classes": {`{{ ''.__class__.__mro__[1].__subclasses__() }}`, "'__class__' of 'str' object is unsafe"},
		"globals": {`{{ cycler.__init__.__globals__.os.popen('id').read() }}`, "'__init__' of 'function' object is unsafe"},
		"include": {`{% include '/etc/passwd' %}`, "{% include %} is refused"},
		"import":  {`{% import 'os' as os %}{{ os.system('id') }}`, "{% import %} is refused"},
	} {
		file := at(name + ".jinja")
		put(t, file, c.text)
		refused(t, c.says, train("chat.jsonl", "--chat-template", file)...)
		if name == "loop" || name == "include" {
			refused(t, c.says, "generate", "--model", at("stories260K"), "--prompt", "Hi", "--chat-template", file)
			refused(t, c.says, "eval", "--model", at("stories260K"), "--data", at("chat.jsonl"), "--match", "--chat-template", file)
		}
	}
	require.NoDirExists(t, at("out"))
}
