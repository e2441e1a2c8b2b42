package chart

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// Bin is a part of a distribution: values above From up to To, both positive,
// and how often they occur by octave.
type Bin struct{ From, To, Density float64 }

// Distribution is a named histogram; its bins follow one another. A minor one is
// drawn thin, and its peak may leave the picture.
type Distribution struct {
	Name  string
	Minor bool
	Bins  []Bin
}

// palette are colors that differ for most kinds of eyes too, on white.
var palette = []color.RGBA{
	{R: 214, G: 96, B: 20, A: 255}, {R: 0, G: 130, B: 100, A: 255}, {R: 148, G: 70, B: 170, A: 255}, {R: 190, G: 30, B: 60, A: 255}, {R: 110, G: 90, B: 30, A: 255},
}

// Magnitudes draws distributions over a logarithmic axis, the first as an area
// and the others as lines on it, and returns the picture as PNG of Lines' size.
func Magnitudes(title, x, y string, distributions ...Distribution) ([]byte, error) {
	p := newPlot(title, x, y)
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(powers), plot.TickerFunc(ticks)
	p.Legend.Left, p.Legend.XOffs = true, vg.Points(10) // the side of the small is the empty one
	var top float64
	for i, d := range distributions {
		for _, b := range d.Bins {
			if !d.Minor {
				top = math.Max(top, b.Density)
			}
		}
		steps := outline(d.Bins)
		if len(steps) == 0 {
			continue
		}
		line, err := plotter.NewLine(steps)
		if err != nil {
			return nil, err
		}
		line.Width = vg.Points(1.5)
		switch {
		case d.Minor:
			line.Color, line.Width = color.Gray{Y: 120}, vg.Points(1)
		case i == 0:
			line.Color, line.FillColor = color.RGBA{R: 140, G: 175, B: 215, A: 255}, color.RGBA{R: 205, G: 222, B: 240, A: 255}
		default:
			line.Color = palette[(i-1)%len(palette)]
		}
		p.Add(line)
		p.Legend.Add(d.Name, line)
	}
	p.Y.Min = 0
	if top > 0 {
		p.Y.Max = 1.1 * top
	}
	return render(p)
}

// outline returns the corners of the bins' tops, from the axis and back to it.
func outline(bins []Bin) plotter.XYs {
	var out plotter.XYs
	for i, b := range bins {
		from, to := math.Log10(b.From), math.Log10(b.To)
		if i == 0 {
			out = append(out, plotter.XY{X: from})
		}
		out = append(out, plotter.XY{X: from, Y: b.Density}, plotter.XY{X: to, Y: b.Density})
		if i == len(bins)-1 {
			out = append(out, plotter.XY{X: to})
		}
	}
	return out
}

// powers marks an axis of decimal logarithms at powers of ten, up to a dozen of
// them, with unlabeled marks at 2 to 9 between neighbours.
func powers(low, high float64) []plot.Tick {
	step := math.Max(1, math.Ceil((high-low)/12))
	var out []plot.Tick
	for e := math.Floor(low/step) * step; e <= high; e += step {
		if e >= low {
			out = append(out, plot.Tick{Value: e, Label: power(int(e))})
		}
		for m := 2; m < 10 && step == 1; m++ {
			if v := e + math.Log10(float64(m)); v >= low && v <= high {
				out = append(out, plot.Tick{Value: v})
			}
		}
	}
	return out
}

// power writes a power of ten, in digits if there are few.
func power(e int) string {
	if e >= -3 && e <= 3 {
		return fmt.Sprint(math.Pow(10, float64(e)))
	}
	return fmt.Sprintf("1e%d", e)
}
