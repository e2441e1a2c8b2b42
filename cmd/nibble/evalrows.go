package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// pair is a prompt and what should follow it.
type pair struct {
	line               int
	prompt, completion string
}

// pairKeys are the names that rows have for the two.
var pairKeys = [][2]string{{"prompt", "completion"}, {"question", "answer"}}

const pairShapes = `rows look like {"prompt": "...", "completion": "..."}, {"question": "...", "answer": "..."}, or {"text": "..."} with --match-split`

// maxPairLine bounds a line.
const maxPairLine = 64 << 20

// readPairs reads the rows of a file, or of the test data of a folder, else valid,
// else train: at most that many, all if most is 0. A row that is one text is split
// behind the last mark in it.
func readPairs(path string, most int, mark string) ([]pair, string, error) {
	path, err := pairFile(path)
	if err != nil {
		return nil, "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	var pairs []pair
	in := bufio.NewReaderSize(f, 1<<16)
	for n := 1; most == 0 || len(pairs) < most; n++ {
		line, err := readLine(in)
		if err != nil && err != io.EOF {
			return nil, "", fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if len(bytes.TrimSpace(line)) > 0 {
			p, err := parsePair(line, mark)
			if err != nil {
				return nil, "", fmt.Errorf("%s:%d: %w", path, n, err)
			}
			p.line = n
			pairs = append(pairs, p)
		}
		if err == io.EOF {
			break
		}
	}
	if len(pairs) == 0 {
		return nil, "", hint.Add(fmt.Errorf("%s: %w: no row", path, tensor.ErrMalformed), pairShapes)
	}
	return pairs, path, nil
}

func pairFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return path, err
	}
	for _, name := range []string{"test.jsonl", "valid.jsonl", "train.jsonl"} {
		if file := filepath.Join(path, name); isPlainFile(file) {
			return file, nil
		}
	}
	return "", hint.Add(fmt.Errorf("%s: no test.jsonl, valid.jsonl or train.jsonl: %w", path, fs.ErrNotExist), "give the .jsonl file itself")
}

func isPlainFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// readLine returns the next line, io.EOF with the last one.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxPairLine:
			return nil, fmt.Errorf("%w: a line of more than %d bytes", tensor.ErrMalformed, maxPairLine)
		case !errors.Is(err, bufio.ErrBufferFull):
			return line, err
		}
	}
}

func parsePair(line []byte, mark string) (p pair, err error) {
	var row map[string]any
	if err := json.Unmarshal(bytes.TrimSpace(line), &row); err != nil {
		return p, hint.Add(fmt.Errorf("%w: not a JSON object", tensor.ErrMalformed), pairShapes)
	}
	for _, keys := range pairKeys {
		prompt, ok := row[keys[0]].(string)
		completion, ok2 := row[keys[1]].(string)
		if ok && ok2 {
			return pair{prompt: prompt, completion: completion}, nil
		}
	}
	text, ok := row["text"].(string)
	switch {
	case !ok:
		return p, hint.Add(fmt.Errorf("%w: no prompt and completion", tensor.ErrMalformed), pairShapes)
	case mark == "":
		return p, hint.Add(fmt.Errorf("%w: the row is one text, and it is not said where the completion begins", tensor.ErrMalformed),
			"say with --match-split what stands before it, as in --match-split 'A: '")
	}
	at := strings.LastIndex(text, mark)
	if at < 0 {
		return p, fmt.Errorf("%w: %q is not in the text", tensor.ErrMalformed, mark)
	}
	at += len(mark)
	return pair{prompt: text[:at], completion: text[at:]}, nil
}
