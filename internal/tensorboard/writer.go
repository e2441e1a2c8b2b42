package tensorboard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// prefix is how names of event files begin; seconds since 1970 follow, by which TensorBoard
// reads them in order.
const prefix = "events.out.tfevents."

// Writer writes an event file. Every Write is in the file when it returns, so that
// TensorBoard shows it, and so that a run that is killed has lost nothing.
type Writer struct {
	f *os.File
}

// Create makes the next event file of a directory, whose files are one run to TensorBoard.
// What the earlier ones hold of step from and later does not count any more.
func Create(dir string, from int64, now time.Time) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	earlier, err := files(dir)
	if err != nil {
		return nil, err
	}
	second := now.Unix()
	for _, name := range earlier {
		digits, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), ".")
		if n, err := strconv.ParseInt(digits, 10, 64); err == nil && n < 1<<40 {
			second = max(second, n+1)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%s%010d.%s.%d.0", prefix, second, host(), os.Getpid())), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, err
	}
	w := &Writer{f: f}
	err = w.write(event(now, 0, eventFileVersion, []byte("brain.Event:2")))
	if err == nil && len(earlier) > 0 {
		err = w.write(event(now, from, eventSessionLog, varint(nil, sessionStatus, sessionStart)))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return w, nil
}

// Exist reports whether there are event files in a directory.
func Exist(dir string) bool {
	list, err := files(dir)
	return err == nil && len(list) > 0
}

func files(dir string) (list []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			list = append(list, e.Name())
		}
	}
	return list, err
}

// host is the machine's name, as far as it goes into the name of a file.
func host() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == ':' || r <= ' ' || r > '~' {
			return '-'
		}
		return r
	}, name)
}

// Summary is what is known of one step.
type Summary struct{ values [][]byte }

// Scalar adds a number.
func (s *Summary) Scalar(tag string, v float64) { s.values = append(s.values, scalar(tag, v)) }

// Text adds texts, which are read as Markdown. Their tag gets torch's ending.
func (s *Summary) Text(tag string, texts ...string) {
	s.values = append(s.values, text(tag+"/text_summary", texts...))
}

// Write writes a summary at a step, unless it is empty.
func (w *Writer) Write(when time.Time, step int64, s *Summary) error {
	if len(s.values) == 0 {
		return nil
	}
	var b []byte
	for _, v := range s.values {
		b = bytes(b, summaryValue, v)
	}
	return w.write(event(when, step, eventSummary, b))
}

// write writes a message. Of one that does not fit nothing stays, for half a frame ends the
// file for its readers.
func (w *Writer) write(message []byte) error {
	at, err := w.f.Seek(0, 1)
	if err != nil {
		return err
	}
	if _, err := w.f.Write(frame(message)); err != nil {
		_, serr := w.f.Seek(at, 0)
		return errors.Join(err, w.f.Truncate(at), serr)
	}
	return nil
}

// Name returns the path of the file.
func (w *Writer) Name() string { return w.f.Name() }

// Close implements io.Closer.
func (w *Writer) Close() error { return errors.Join(w.f.Sync(), w.f.Close()) }
