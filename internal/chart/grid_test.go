package chart

import (
	"bytes"
	"encoding/xml"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCurvesAndGrid(t *testing.T) {
	nan := math.NaN()
	for _, g := range []Grid{
		{},
		{Title: "one", Rows: []string{"q"}, Columns: []string{"0"}, Values: [][]float64{{3}}, Texts: [][]string{{"8"}}},
		{Title: "two", X: "layer", Rows: []string{"q", "v"}, Columns: []string{"0", "1", "–"}, Values: [][]float64{{1, 2, nan}, {nan, 2.5, 0}}, Texts: [][]string{{"1", "2", ""}, {"", "longer than its field", "0"}}},
		{Rows: []string{"empty"}, Columns: []string{"0"}, Values: [][]float64{{nan}}, Texts: [][]string{{""}}},
	} {
		var curves []Curve
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "none"} {
			c := Curve{Name: name}
			if name != "none" {
				c.Points = []Point{{0, 1}, {1, 0.5}, {2, nan}, {3, 0}}
			}
			curves = append(curves, c)
		}
		b, err := CurvesAndGrid("Loss", "rank", "share", false, curves, g, false)
		require.NoError(t, err)
		img, err := png.Decode(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, 1440, img.Bounds().Dx())
		require.Equal(t, 600, img.Bounds().Dy())

		b, err = CurvesAndGrid("Loss", "rank", "share", true, curves, g, true)
		require.NoError(t, err)
		d := xml.NewDecoder(bytes.NewReader(b))
		for {
			_, err := d.Token()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
		}
		for _, r := range g.Rows {
			require.True(t, strings.Contains(string(b), ">"+r+"<"), "%s is written", r)
		}
	}
}
