package modelcard

import (
	"errors"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An id is what the parts of a model's name mean, as far as they can be told
// apart. A nil part is not there.
type id struct {
	full, organization, basename, finetune, version, sizeLabel *string
}

// What the parts of a name look like. Python's \d is any decimal digit, its \w
// any letter or digit, and without regard to case i is also dotless and dotted
// i.
var (
	versionPart  = regexp.MustCompile(`^(?i:v|[iıİ]ter)?\p{Nd}+([.]\p{Nd}+)*$`)
	typePart     = regexp.MustCompile(`^(?i:[iıİ]?q\p{Nd}(_[\p{L}\p{N}_])*|b?fp?(16|32))$`)
	sizePart     = regexp.MustCompile(`^(?i:(a|\p{Nd}+x)?\p{Nd}+([._]\p{Nd}+)?[kmbt]\p{Nd}?|small|m[iıİ]n[iıİ]|med[iıİ]um|large|x?xl)$`)
	finetunePart = regexp.MustCompile(`^(?i:chat|[iıİ]nstruct|v[iıİ]s[iıİ]on|lora)$`)

	// verbatim is a word that is no word: a version or something with a digit in
	// front.
	verbatim = regexp.MustCompile(`^(v\p{Nd}+(\.\p{Nd}+)*|\p{Nd}.*)$`)
)

// titleOf makes a name for people of one for machines: dashes become spaces,
// and words in lower case get capitals (Metadata.id_to_title).
func titleOf(s string) string {
	words := fields(strings.ReplaceAll(s, "-", " "))
	for i, w := range words {
		if isLower(w) && !verbatim.MatchString(w) {
			words[i] = title(w)
		}
	}
	return strings.Join(words, " ")
}

// A kind is what a part of a name is taken for; a part can be several.
type partKind uint8

const (
	isBasename partKind = 1 << iota
	isSize
	isFinetune
	isVersion
	isType
)

// A part of a name is what stands between dashes.
type part struct {
	text string
	is   partKind
}

// parseID takes a name of a model apart, "organization/name" or the name alone
// (Metadata.get_model_id_components). total is the number of the model's
// parameters, negative for an adapter, 0 if not known.
func parseID(s string, total int64) id {
	if strings.Contains(s, " ") {
		return id{full: &s} // written for people
	}
	var out id
	name := s
	if org, rest, ok := strings.Cut(s, "/"); ok {
		name = rest
		if !strings.HasPrefix(org, ".") { // "./model" and "../model" are paths
			out.organization = &org
		}
	}
	out.full = &name

	var parts []part
	for i, text := range slices.DeleteFunc(strings.Split(name, "-"), func(s string) bool { return s == "" }) {
		parts = append(parts, classify(text, i == 0, total))
	}
	dropWords(parts)
	markBasename(parts)

	out.basename = join(parts, func(p part) bool { return p.is&isBasename != 0 })
	var sizes []part
	for _, p := range parts {
		if p.is&isSize != 0 && !slices.ContainsFunc(sizes, func(q part) bool { return q.text == p.text }) {
			sizes = append(sizes, p)
		}
	}
	out.sizeLabel = join(sizes, func(part) bool { return true })
	out.finetune = join(parts, func(p part) bool { return p.is&isFinetune != 0 })
	out.version = join(parts, func(p part) bool { return p.is&isVersion != 0 && p.is&isBasename == 0 })
	if out.sizeLabel == nil && out.finetune == nil && out.version == nil {
		out.basename = nil // who knows
	}
	return out
}

// classify recognizes a part by its look alone.
func classify(text string, first bool, total int64) part {
	switch {
	case versionPart.MatchString(text):
		return part{text, isVersion}
	case typePart.MatchString(text):
		return part{upper(text), isType}
	case !first && sizePart.MatchString(text):
		return classifySize(text, total)
	case !first && finetunePart.MatchString(text):
		if total < 0 && strings.EqualFold(text, "lora") {
			return part{text, isType} // that it is an adapter is said elsewhere
		}
		return part{text, isFinetune}
	}
	return part{text: text}
}

// classifySize tells a number of parameters from a length of context, which is
// written the same: it must be near the model's own.
func classifySize(text string, total int64) part {
	r := []rune(strings.ReplaceAll(text, "_", "."))
	if n := len(r); isDecimal(r[n-1]) { // bloom-7b1 has 7.1 billion
		r = append(r[:n-2], '.', r[n-1], r[n-2])
	}
	last := &r[len(r)-1]
	if len(r) > 1 && isDecimal(r[len(r)-2]) && strings.ContainsRune("kmbt", *last) {
		*last = unicode.ToUpper(*last)
	}
	if total != 0 {
		if n, ok := pythonFloat(r[:len(r)-1]); ok && !plausible(n*math.Pow(1000, float64(strings.IndexRune(" KMBT", *last))), total) {
			*last = unicode.ToLower(*last)
			return part{string(r), isFinetune}
		}
	}
	return part{string(r), isSize}
}

// plausible reports whether a model of that many parameters may be labeled so.
// An adapter need not change all layers of the model, so its label may be
// larger than it.
func plausible(label float64, total int64) bool {
	if total < 0 {
		return label >= float64(uint64(-total)/8)
	}
	return math.Abs(label-float64(total)) <= float64(total-(total-1)/8-1) // 7 * total / 8
}

// pythonFloat is float of digits and dots, of any alphabet.
func pythonFloat(r []rune) (float64, bool) {
	b := make([]byte, 0, len(r))
	for _, c := range r {
		switch {
		case isDecimal(c):
			b = append(b, '0'+byte(digit(c)))
		case c == '.':
			b = append(b, '.')
		default:
			return 0, false // a letter, as in 8x7B
		}
	}
	v, err := strconv.ParseFloat(string(b), 64)
	return v, err == nil || errors.Is(err, strconv.ErrRange)
}

// digit returns the value of a decimal digit: those of an alphabet stand
// together, zero first.
func digit(r rune) rune {
	for _, t := range unicode.Nd.R16 {
		if rune(t.Lo) <= r && r <= rune(t.Hi) {
			return (r - rune(t.Lo)) % 10
		}
	}
	for _, t := range unicode.Nd.R32 {
		if rune(t.Lo) <= r && r <= rune(t.Hi) {
			return (r - rune(t.Lo)) % 10
		}
	}
	return 0
}

// dropWords leaves only the sizes with a number if there are any: the "mini" of
// GreenNode-mini-7B is a name.
func dropWords(parts []part) {
	number := slices.ContainsFunc(parts, func(p part) bool { return p.is&isSize != 0 && strings.ContainsFunc(p.text, isDecimal) })
	for i, p := range parts {
		if number && p.is&isSize != 0 && !strings.ContainsFunc(p.text, func(r rune) bool { return !unicode.IsLetter(r) }) {
			parts[i].is &^= isSize
		}
	}
}

// markBasename takes the unknown words and versions in front for the basename,
// without a version at its end, and unknown words behind it for the kind of
// fine-tuning.
func markBasename(parts []part) {
	atStart := true
	for i := range parts {
		p := &parts[i]
		first, _ := utf8.DecodeRuneInString(p.text)
		if atStart && (p.is == 0 && unicode.IsLetter(first) || p.is&isVersion != 0) {
			p.is |= isBasename
			continue
		}
		atStart = false
		if p.is == 0 {
			p.is = isFinetune
		}
	}
	for i := len(parts) - 1; i >= 0 && parts[i].is&isBasename != 0 && parts[i].is != isBasename; i-- {
		parts[i].is &^= isBasename
	}
}

// join puts the parts that are chosen together again, nil if there are none.
func join(parts []part, chosen func(part) bool) *string {
	var texts []string
	for _, p := range parts {
		if chosen(p) {
			texts = append(texts, p.text)
		}
	}
	if len(texts) == 0 {
		return nil
	}
	s := strings.Join(texts, "-")
	return &s
}
