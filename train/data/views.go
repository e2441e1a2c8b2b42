package data

import (
	"math"
	"sync"
)

// examples is where a Dataset takes its examples from.
type examples interface {
	len() int
	example(i int) (Example, error)
	length(i int) int // in tokens, of an example
	memory() int64    // bytes that it holds
}

// subset is some of others.
type subset struct {
	of examples
	at []int32
}

func (s *subset) len() int                       { return len(s.at) }
func (s *subset) example(i int) (Example, error) { return s.of.example(int(s.at[i])) }
func (s *subset) length(i int) int               { return s.of.length(int(s.at[i])) }
func (s *subset) memory() int64                  { return s.of.memory() + 4*int64(len(s.at)) }

// packs are several of others in each.
type packs struct {
	of   examples
	docs []int32 // in the order of the packs
	ends []int32 // of each pack, in docs
}

func newPacks(of examples, capacity int) *packs {
	p := &packs{of: of}
	p.docs, p.ends = pack(of.len(), capacity, of.length)
	return p
}

func (p *packs) len() int { return len(p.ends) }

func (p *packs) pack(i int) []int32 {
	from := int32(0)
	if i > 0 {
		from = p.ends[i-1]
	}
	return p.docs[from:p.ends[i]]
}

func (p *packs) length(i int) int {
	n := 0
	for _, d := range p.pack(i) {
		n += p.of.length(int(d))
	}
	return n
}

func (p *packs) example(i int) (Example, error) {
	docs := p.pack(i)
	if len(docs) == 1 {
		return p.of.example(int(docs[0]))
	}
	n := p.length(i)
	out := Example{Tokens: make([]int32, 0, n), Loss: make([]bool, 0, n)}
	for _, d := range docs {
		e, err := p.of.example(int(d))
		if err != nil {
			return Example{}, err
		}
		out.Tokens = append(out.Tokens, e.Tokens...)
		for j := range e.Tokens {
			out.Loss = append(out.Loss, e.Loss == nil || e.Loss[j])
		}
		out.Ends = append(out.Ends, len(out.Tokens))
	}
	return out, nil
}

func (p *packs) memory() int64 { return p.of.memory() + 4*int64(len(p.docs)+len(p.ends)) }

// part is one of several data sets that are mixed. An epoch goes through it weight
// times. What is left of a weight that is not whole goes through a shuffle of it, on
// from where the epoch before stopped, so that nothing is left out for ever.
type part struct {
	of    examples
	whole int // examples of an epoch that are whole times through
	rest  int
	seed  uint64

	mu    sync.Mutex
	perms map[int64][]int32 // of the shuffles in use, at most two
}

func newPart(of examples, weight float64, seed uint64) *part {
	n := of.len()
	slots := int(math.Round(weight * float64(n)))
	return &part{of: of, whole: slots / n * n, rest: slots % n, seed: seed}
}

func (p *part) len() int { return p.whole + p.rest }

// at returns which of its examples is the i-th of an epoch.
func (p *part) at(epoch int64, i int) int {
	n := p.of.len()
	if i < p.whole {
		return i % n
	}
	pos := epoch*int64(p.rest) + int64(i-p.whole)
	round := pos / int64(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	perm, ok := p.perms[round]
	if !ok {
		first := epoch * int64(p.rest) / int64(n)
		for old := range p.perms {
			if old < first || old > first+1 {
				delete(p.perms, old)
			}
		}
		if p.perms == nil {
			p.perms = map[int64][]int32{}
		}
		perm = Permutation(p.seed, round, n)
		p.perms[round] = perm
	}
	return int(perm[pos%int64(n)])
}

// mix is several data sets, one after the other; the order in which they are taken is
// not its own.
type mix []*part

func (m mix) find(i int) (*part, int) {
	for _, p := range m {
		if i < p.len() {
			return p, i
		}
		i -= p.len()
	}
	panic("data: no such example") // Dataset looks at the bounds
}

func (m mix) len() int {
	n := 0
	for _, p := range m {
		n += p.len()
	}
	return n
}

func (m mix) example(i int) (Example, error) { return m.exampleOf(0, i) }

func (m mix) exampleOf(epoch int64, i int) (Example, error) {
	p, i := m.find(i)
	return p.of.example(p.at(epoch, i))
}

func (m mix) length(i int) int {
	p, i := m.find(i)
	return p.of.length(p.at(0, i))
}

func (m mix) memory() int64 {
	n := int64(0)
	for _, p := range m {
		n += p.of.memory()
		if p.rest > 0 {
			n += 8 * int64(p.of.len())
		}
	}
	return n
}
