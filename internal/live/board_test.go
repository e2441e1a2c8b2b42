package live

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func step(i int) Step {
	return Step{
		Step: i, Loss: float64(i), Smoothed: float64(i) / 2, GradNorm: float64(i % 10), LearningRate: 1 / float64(i),
		TokensPerSecond: 100, Seconds: 2, DiskWait: 1, Memory: int64(i), Peak: int64(i), Left: 5,
	}
}

// A run of any length takes the same room, and what it was is still to be seen.
func TestBoardThins(t *testing.T) {
	b := NewBoard(Run{Steps: 100_000})
	for i := 1; i <= 100_000; i++ {
		s := step(i)
		if i == 54_321 {
			s.Loss, s.GradNorm = 1e6, 999
		}
		if i%10 == 0 {
			loss := float64(100_000-i) + float64(i%20)
			s.EvalLoss, s.Best = &loss, i%20 == 0
			s.Samples = []Sample{{"p", fmt.Sprint(i)}}
			s.Notes = []string{fmt.Sprint("note ", i)}
		}
		b.Add(s)
		require.LessOrEqual(t, len(b.all.Points), maxPoints)
	}
	p := b.copy()
	require.Greater(t, len(p.Points), maxPoints/4)
	require.Less(t, len(p.Evals), maxEvals)
	require.Equal(t, 100_000, p.Step)
	require.Equal(t, 100_000, p.Points[len(p.Points)-1].Step)
	n, sum, spike := 0, 0.0, false
	for i, x := range p.Points {
		n += x.N
		sum += float64(x.Loss) * float64(x.N)
		require.Equal(t, n, x.Step, "no step is missing")
		require.Equal(t, number(x.Step)/2, x.Smooth)
		require.InDelta(t, 0.5, float64(x.Wait), 1e-9)
		if x.High == 1e6 {
			spike = true
			require.Equal(t, number(999), x.Norm)
		} else {
			require.Equal(t, number(x.Step), x.High)
			require.Equal(t, number(x.Step-x.N+1), x.Low)
		}
		require.True(t, i == len(p.Points)-1 || x.N == b.stride)
	}
	require.True(t, spike)
	require.Equal(t, 100_000, n)
	require.InEpsilon(t, 100_000.0*100_001/2+1e6-54_321, sum, 1e-9, "the mean is that of all steps")

	best := p.Evals[len(p.Evals)-1]
	require.Equal(t, 100_000, best.Step)
	require.True(t, best.Best)
	require.Len(t, p.Samples, maxSamples)
	require.Equal(t, []int{10, 100_000}, []int{p.Samples[0].Step, p.Samples[maxSamples-1].Step})
	require.Len(t, p.Notes, maxNotes)
	require.Equal(t, "note 100000", p.Notes[maxNotes-1].Text)
	require.Less(t, len(encode(&p)), 600_000)
}

// Whoever applies the changes has what the Board has, however it is thinned meanwhile.
func TestChanges(t *testing.T) {
	b := NewBoard(Run{Title: "x"})
	b.watch()
	var mine picture
	seen := int64(-1)
	wholes := 0
	catchUp := func() {
		n := b.after(seen)
		seen = n.seq
		if n.whole != nil {
			wholes++
			require.NoError(t, json.Unmarshal(encode(n.whole), &mine))
		}
		for _, text := range n.changes {
			var c change
			require.NoError(t, json.Unmarshal(text, &c))
			if c.Point != nil {
				mine.Points = append(mine.Points[:c.At], *c.Point)
			}
			if c.Eval != nil {
				mine.Evals = append(mine.Evals, *c.Eval)
			}
			if c.Samples != nil {
				mine.Samples = append(mine.Samples, *c.Samples)
			}
			mine.Notes = append(mine.Notes, c.Notes...)
			if len(mine.Samples) > maxSamples {
				mine.Samples = slices.Delete(mine.Samples, 1, 2)
			}
			mine.Step, mine.Left = c.Step, c.Left
		}
		want := b.copy()
		require.True(t, bytes.Equal(encode(&want), encode(&mine)))
	}
	for i := 0; i <= 3*maxPoints; i++ {
		s := Step{EvalLoss: new(float64)}
		if i > 0 {
			s = step(i)
		}
		if i%100 == 0 {
			s.Samples, s.Notes = []Sample{{"p", fmt.Sprint(i)}}, []string{"n"}
			s.EvalLoss = &s.Loss
		}
		b.Add(s)
		switch {
		case i < 300, i > 2*maxPoints && i%7 == 0:
			catchUp()
		case i%97 == 0:
			catchUp()
		case i == 2*maxPoints-10: // too late for changes
			catchUp()
		}
	}
	require.Less(t, wholes, 100)
	require.Greater(t, b.stride, 1)
	b.Note("a warning")
	catchUp()
	b.End(Failed, "why")
	catchUp()
	require.Equal(t, Failed, mine.Status)
	require.True(t, b.after(seen).ended)
	require.Empty(t, b.after(seen).changes)
	require.NotNil(t, b.after(seen+1).whole, "a number that was never given")
}

func TestTextsAreBounded(t *testing.T) {
	b := NewBoard(Run{})
	b.Add(Step{Samples: []Sample{{"p", strings.Repeat("é", maxText)}, {"\xff", ""}}, Notes: []string{strings.Repeat("x", 10*maxText)}})
	p := b.copy()
	require.Less(t, len(p.Samples[0].List[0].Text), maxText+10)
	require.Equal(t, "\uFFFD", p.Samples[0].List[1].Prompt)
	require.Less(t, len(p.Notes[0].Text), maxText+10)
	b.Add(Step{Samples: make([]Sample, 1000)})
	require.Len(t, b.copy().Samples[1].List, 16)
}

var dataBlock = regexp.MustCompile(`(?s)<script id="data" type="application/json">(.*?)</script>`)

// The page that is kept has its data in it, and nothing of the data is markup.
func TestHTML(t *testing.T) {
	hostile := `</script><script>alert(1)</script><!-- & "`
	b := NewBoard(Run{Title: hostile, Command: hostile, Steps: 2, Began: time.Unix(0, 0).UTC()})
	s := step(1)
	s.GradNorm = math.NaN()
	s.Samples, s.Notes = []Sample{{hostile, hostile}}, []string{hostile}
	b.Add(s)
	b.End(Finished, "")
	text, err := b.HTML()
	require.NoError(t, err)
	require.NotContains(t, string(text), "<script>alert")
	require.NotContains(t, string(text), "http://www.w3.org/1999", "nothing from elsewhere")
	for _, m := range regexp.MustCompile(`(?:https?:)?//[a-z0-9.]+`).FindAllString(strings.ReplaceAll(string(text), "http://www.w3.org/2000/svg", ""), -1) {
		require.Fail(t, "the page names another place", m)
	}
	data := dataBlock.FindSubmatch(text)
	require.NotNil(t, data)
	var p picture
	require.NoError(t, json.Unmarshal(data[1], &p))
	require.Equal(t, hostile, p.Run.Title)
	require.Equal(t, hostile, p.Samples[0].List[0].Text)
	require.Equal(t, Finished, p.Status)
	require.Len(t, p.Points, 1)
	require.Contains(t, string(data[1]), `"g":null`)

	again, err := b.HTML()
	require.NoError(t, err)
	require.Equal(t, text, again)
}

// What the page's policy lets run is what is in it.
func TestPolicy(t *testing.T) {
	text, err := render("x", nil)
	require.NoError(t, err)
	require.NotRegexp(t, dataBlock, string(text))
	part := func(tag string) string {
		m := regexp.MustCompile(`(?s)<` + tag + `>(.*?)</` + tag + `>`).FindStringSubmatch(string(text))
		require.NotNil(t, m)
		return m[1]
	}
	require.Contains(t, html.UnescapeString(string(text)), policy(part("style"), part("script")))
}

func TestLine(t *testing.T) {
	b := NewBoard(Run{Planned: 48 << 20})
	require.Empty(t, b.Line())
	s := step(7)
	s.Peak, s.Left, s.Memory = 37<<20, 3725.9, 0
	b.Add(s)
	require.Equal(t, "  loss 3.5000  100 tok/s  ETA 1h2m5s  37 of 48 MiB  disk 50 %", b.Line())
	b.all.Run.Planned = 20 << 30
	require.Contains(t, b.Line(), "  0.0 of 20.0 GiB")
}
