package onig

// verdict is what is remembered of a branch at a place in the text.
type verdict uint8

const (
	unknown verdict = iota
	failed          // nothing matches from there
	matched         // the look-ahead that the branch is part of matches from there
)

const (
	pagePlaces = 512 // places of the text on one page

	// maxMemory bounds the pages, in bytes.
	maxMemory = 64 << 20
)

// memory holds verdicts, two bits each, for the pages of the text where there
// are some.
type memory struct {
	branches int
	pages    map[int][]uint64
	oldest   int // no page before this one is there
}

func (m *memory) clear() {
	if len(m.pages) > 0 {
		clear(m.pages)
	}
	m.oldest = 0
}

// forget drops the pages before a place.
func (m *memory) forget(at int) {
	page := at / pagePlaces
	if m.oldest >= page {
		return
	}
	if len(m.pages) > 0 {
		for i := range m.pages {
			if i < page {
				delete(m.pages, i)
			}
		}
	}
	m.oldest = page
}

func (m *memory) bit(branch int32, at int) int {
	return 2 * ((at%pagePlaces)*m.branches + int(branch))
}

func (m *memory) get(branch int32, at int) verdict {
	page, ok := m.pages[at/pagePlaces]
	if !ok {
		return unknown
	}
	bit := m.bit(branch, at)
	return verdict(page[bit/64] >> (bit % 64) & 3)
}

func (m *memory) set(branch int32, at int, v verdict) {
	page, ok := m.pages[at/pagePlaces]
	if !ok {
		words := (2*pagePlaces*m.branches + 63) / 64
		if m.pages == nil {
			m.pages = map[int][]uint64{}
		}
		if 8*words*len(m.pages) > maxMemory {
			clear(m.pages)
		}
		page = make([]uint64, words)
		m.pages[at/pagePlaces] = page
	}
	bit := m.bit(branch, at)
	page[bit/64] |= uint64(v) << (bit % 64)
}
