package live

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Run is what is known of a run before it begins.
type Run struct {
	Program string `json:"program"` // with its version
	Command string `json:"command"`

	Title  string `json:"title"`
	Model  string `json:"model"`
	Data   string `json:"data"`
	Output string `json:"output"`
	Method string `json:"method"` // in a few words

	Steps     int   `json:"steps"`
	Trainable int64 `json:"trainable"`
	Params    int64 `json:"params"`
	Planned   int64 `json:"planned"` // memory in bytes

	Began time.Time `json:"began"`
}

// Step is what is known of a step. What is not known is zero.
type Step struct {
	Step         int
	Loss         float64
	Smoothed     float64
	GradNorm     float64
	LearningRate float64

	TokensPerSecond float64
	Seconds         float64 // that the step took
	DiskWait        float64 // seconds of these
	Memory          int64   // resident, in bytes
	Peak            int64   // the most so far

	// Left is how many seconds the run will still take.
	Left float64

	EvalLoss *float64
	Best     bool // no evaluation before was better

	Samples []Sample
	Notes   []string
}

// Sample is what the model made of a prompt.
type Sample struct {
	Prompt string `json:"prompt"`
	Text   string `json:"text"`
}

// Status is how a run stands.
type Status string

const (
	Running  Status = "running"
	Finished Status = "finished"
	Stopped  Status = "stopped" // it can go on
	Failed   Status = "failed"
)

// What a Board keeps at most. The page does the same with samples and notes.
const (
	maxPoints  = 2048
	maxEvals   = 1024
	maxSamples = 24 // times that samples were made
	maxNotes   = 200
	maxText    = 4 << 10 // bytes of a sample or note
	maxMissed  = 256     // changes for who comes back
)

// number is one that is written with six digits, and null if JSON has none.
type number float64

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) {
	if f := float64(n); math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(n), 'g', 6, 64), nil
}

// point is one or several steps that follow one another. Of several the loss is the mean,
// with the lowest and the highest; norm and memory are the largest, speed and wait the mean,
// and the rest is of the last.
type point struct {
	Step   int    `json:"s"`
	N      int    `json:"n"`
	Loss   number `json:"l"`
	Low    number `json:"lo"`
	High   number `json:"hi"`
	Smooth number `json:"m"`
	Norm   number `json:"g"`
	Rate   number `json:"r"`
	Speed  number `json:"t"`
	Wait   number `json:"w"` // share of the time
	Memory int64  `json:"b"`
	Peak   int64  `json:"p"`
}

func newPoint(s Step) point {
	p := point{
		Step: s.Step, N: 1, Loss: number(s.Loss), Low: number(s.Loss), High: number(s.Loss), Smooth: number(s.Smoothed),
		Norm: number(s.GradNorm), Rate: number(s.LearningRate), Speed: number(s.TokensPerSecond), Memory: s.Memory, Wait: number(s.WaitShare()), Peak: s.Peak,
	}
	return p
}

// and returns p with the steps of q after it.
func (p point) and(q point) point {
	share := number(q.N) / number(p.N+q.N)
	mean := func(a, b number) number { return a + (b-a)*share }
	return point{
		Step: q.Step, N: p.N + q.N, Loss: mean(p.Loss, q.Loss), Low: min(p.Low, q.Low), High: max(p.High, q.High), Smooth: q.Smooth,
		Norm: max(p.Norm, q.Norm), Rate: q.Rate, Speed: mean(p.Speed, q.Speed), Wait: mean(p.Wait, q.Wait),
		Memory: max(p.Memory, q.Memory), Peak: max(p.Peak, q.Peak),
	}
}

type eval struct {
	Step int    `json:"s"`
	Loss number `json:"l"`
	Best bool   `json:"best,omitempty"`
}

type samples struct {
	Step int      `json:"s"`
	List []Sample `json:"list"`
}

type note struct {
	Step int    `json:"s"`
	Text string `json:"text"`
}

// picture is all that a page shows.
type picture struct {
	Run     Run       `json:"run"`
	Points  []point   `json:"points"`
	Evals   []eval    `json:"evals"`
	Samples []samples `json:"samples"`
	Notes   []note    `json:"notes"`
	Step    int       `json:"step"`
	Left    number    `json:"left"`
	Status  Status    `json:"status"`
	Why     string    `json:"why,omitempty"`
}

// change is what one step adds to a picture: At is where in the points it belongs, in place
// of the one that is there or after the last.
type change struct {
	At      int      `json:"at"`
	Point   *point   `json:"point,omitempty"`
	Eval    *eval    `json:"eval,omitempty"`
	Samples *samples `json:"samples,omitempty"`
	Notes   []note   `json:"notes,omitempty"`
	Step    int      `json:"step"`
	Left    number   `json:"left"`
}

// A Board holds what is to be seen of a run. Its methods may be called from anywhere.
type Board struct {
	mu     sync.Mutex
	all    picture
	stride int // steps of a point

	// missed are the last changes, as JSON; the newest is number seq. A gap before them is
	// filled by the whole.
	missed  [][]byte
	seq     int64
	watched bool          // somebody may ask for changes
	changed chan struct{} // closed when there is something new
}

// NewBoard returns the Board of a run that begins.
func NewBoard(run Run) *Board {
	run.Command = cut(run.Command)
	return &Board{
		all:    picture{Run: run, Points: []point{}, Evals: []eval{}, Samples: []samples{}, Notes: []note{}, Status: Running},
		stride: 1, changed: make(chan struct{}),
	}
}

// Add takes what is known of a step.
func (b *Board) Add(s Step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := change{Step: s.Step, Left: number(s.Left)}
	b.all.Step, b.all.Left = s.Step, number(s.Left)
	thinned := false
	if s.Step > 0 {
		p := newPoint(s)
		if last := len(b.all.Points) - 1; last >= 0 && b.all.Points[last].N < b.stride {
			p = b.all.Points[last].and(p)
			b.all.Points[last] = p
		} else {
			b.all.Points = append(b.all.Points, p)
		}
		c.At, c.Point = len(b.all.Points)-1, &p
		if len(b.all.Points) >= maxPoints && p.N == b.stride {
			b.thin()
			thinned = true
		}
	}
	if s.EvalLoss != nil {
		e := eval{s.Step, number(*s.EvalLoss), s.Best}
		b.all.Evals = append(b.all.Evals, e)
		c.Eval = &e
		if len(b.all.Evals) >= maxEvals {
			b.thinEvals()
			thinned = true
		}
	}
	if len(s.Samples) > 0 {
		x := samples{Step: s.Step}
		for _, sample := range s.Samples[:min(len(s.Samples), 16)] {
			x.List = append(x.List, Sample{cut(sample.Prompt), cut(sample.Text)})
		}
		b.all.Samples = append(b.all.Samples, x)
		c.Samples = &x
		if n := len(b.all.Samples); n > maxSamples {
			// The first show where the model came from, the last where it is.
			b.all.Samples = append(b.all.Samples[:1:1], b.all.Samples[2:]...)
		}
	}
	for _, text := range s.Notes {
		c.Notes = append(c.Notes, note{s.Step, cut(text)})
	}
	b.note(c.Notes...)
	b.publish(c, thinned)
}

// Note takes something worth a warning.
func (b *Board) Note(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := note{b.all.Step, cut(text)}
	b.note(n)
	b.publish(change{Notes: []note{n}, Step: b.all.Step, Left: b.all.Left}, false)
}

func (b *Board) note(list ...note) {
	b.all.Notes = append(b.all.Notes, list...)
	if n := len(b.all.Notes) - maxNotes; n > 0 {
		b.all.Notes = append(b.all.Notes[:0:0], b.all.Notes[n:]...)
	}
}

// End says how the run has ended, and why if it failed.
func (b *Board) End(status Status, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all.Status, b.all.Why, b.all.Left = status, cut(why), 0
	b.publish(change{}, true)
}

// thin makes one point of every two.
func (b *Board) thin() {
	list := b.all.Points
	for i := range len(list) / 2 {
		list[i] = list[2*i].and(list[2*i+1])
	}
	half := len(list) / 2
	if len(list)%2 == 1 {
		list[half] = list[len(list)-1]
		half++
	}
	b.all.Points = list[:half]
	b.stride *= 2
}

// thinEvals leaves out every other evaluation that was not the best of its time.
func (b *Board) thinEvals() {
	var kept []eval
	last := len(b.all.Evals) - 1
	best := last
	for i := last; i >= 0; i-- {
		if b.all.Evals[i].Best {
			best = i
			break
		}
	}
	for i, e := range b.all.Evals {
		if i%2 == 0 || i == best || i == last {
			kept = append(kept, e)
		}
	}
	b.all.Evals = kept
}

// publish tells those who watch. If whole, the change does not say it all.
func (b *Board) publish(c change, whole bool) {
	if !b.watched {
		return
	}
	b.seq++
	if whole {
		b.missed = nil
	} else {
		b.missed = append(b.missed, encode(c))
		if len(b.missed) > maxMissed {
			b.missed = append(b.missed[:0:0], b.missed[maxMissed/2:]...)
		}
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// watch makes the Board keep changes for after.
func (b *Board) watch() {
	b.mu.Lock()
	b.watched = true
	b.mu.Unlock()
}

// news is what a watcher has not seen.
type news struct {
	seq     int64
	whole   *picture // in place of changes
	changes [][]byte
	ended   bool
	more    <-chan struct{} // closed when there is more
}

// after returns what came after number seq; -1 is for who has seen nothing.
func (b *Board) after(seq int64) news {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := news{seq: b.seq, ended: b.all.Status != Running, more: b.changed}
	first := b.seq - int64(len(b.missed)) // the last that is not kept
	if seq >= first && seq <= b.seq {
		// The slice is only ever appended to, or replaced.
		n.changes = b.missed[seq-first:]
		return n
	}
	whole := b.copy()
	n.whole = &whole
	return n
}

// copy returns the picture as it is now.
func (b *Board) copy() picture {
	p := b.all
	p.Points = append([]point{}, p.Points...)
	p.Evals = append([]eval{}, p.Evals...)
	p.Samples = append([]samples{}, p.Samples...)
	p.Notes = append([]note{}, p.Notes...)
	return p
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("a picture cannot be encoded: " + err.Error()) // its numbers are written by number
	}
	return b
}

// cut shortens a text that is too long for the page, and makes it valid.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	end := maxText
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + " […]"
}

// WaitShare is the share of the step's time that was spent waiting for the disk.
func (s *Step) WaitShare() float64 {
	if s.Seconds <= 0 {
		return 0
	}
	return min(1, s.DiskWait/s.Seconds)
}

// Line is how the run stands, short enough to stand behind a bar on 80 columns: the loss,
// smoothed, the speed, the time left, the most memory and what was planned, and how much of
// the time went by waiting for the disk.
func (b *Board) Line() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.all.Points) == 0 {
		return ""
	}
	p := b.all.Points[len(b.all.Points)-1]
	line := fmt.Sprintf("  loss %.4f  %.0f tok/s  ETA %v", float64(p.Smooth), float64(p.Speed), time.Duration(b.all.Left)*time.Second)
	if p.Peak > 0 {
		const gib = 1 << 30
		if planned := b.all.Run.Planned; planned < 10*gib {
			line += fmt.Sprintf("  %d of %d MiB", p.Peak>>20, planned>>20)
		} else {
			line += fmt.Sprintf("  %.1f of %.1f GiB", float64(p.Peak)/gib, float64(planned)/gib)
		}
	}
	return line + fmt.Sprintf("  disk %.0f %%", 100*float64(p.Wait))
}
