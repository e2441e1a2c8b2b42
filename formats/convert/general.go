package convert

import (
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/tensor"
)

// Named is GGUFOptions.General for a model of which only the name is known.
func Named(name string) func(total, shared, expert, experts int64) tensor.Meta {
	return func(total, shared, expert, experts int64) tensor.Meta {
		return tensor.Meta{{Key: gguf.KeyName, Value: title(name)}, {Key: "general.size_label", Value: sizeLabel(total)}}
	}
}

var version = regexp.MustCompile(`^(v\d+(\.\d+)*|\d.*)$`)

func title(name string) string {
	words := strings.Fields(strings.ReplaceAll(name, "-", " "))
	for i, w := range words {
		if w == strings.ToLower(w) && w != strings.ToUpper(w) && !version.MatchString(w) {
			words[i] = capitals(w)
		}
	}
	return strings.Join(words, " ")
}

var word = regexp.MustCompile(`\p{L}+`)

func capitals(s string) string {
	return word.ReplaceAllStringFunc(s, func(w string) string {
		r := []rune(w)
		return strings.ToUpper(string(r[0])) + string(r[1:])
	})
}

func sizeLabel(params int64) string {
	v, unit := float64(params)*1e-3, "K"
	for _, u := range []struct {
		above float64
		unit  string
	}{{1e6, "M"}, {1e9, "B"}, {1e12, "T"}} {
		if float64(params) > u.above {
			v, unit = float64(params)/u.above, u.unit
		}
	}
	digits := strings.TrimLeft(strconv.FormatFloat(math.RoundToEven(v), 'f', 0, 64), "0")
	return strconv.FormatFloat(v, 'f', max(2-len(digits), 0), 64) + unit
}
