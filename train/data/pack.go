package data

import "math/bits"

// pack puts documents of n lengths, each at most capacity, into as few packs of capacity
// as best fit decreasing finds: the longest first, each into the pack with the least room
// that takes it (Ding and others, Fewer Truncations Improve Language Modeling, 2024).
// Among equals it is the document that comes first, and the pack that has had this room
// longest. Packs are in the order in which they were begun; so are the documents in each.
func pack(n, capacity int, length func(int) int) (docs, ends []int32) {
	order := byLength(n, capacity, length)
	b := newBins(capacity)
	pack := make([]int32, n) // of each document
	var sizes []int32        // of each pack, in documents
	for _, d := range order {
		size := length(int(d))
		bin, room := b.take(size)
		if bin < 0 {
			bin, room = int32(len(sizes)), capacity
			sizes = append(sizes, 0)
			b.next = append(b.next, -1)
		}
		pack[d] = bin
		sizes[bin]++
		b.put(bin, room-size)
	}
	ends = sizes
	at := make([]int32, len(sizes))
	sum := int32(0)
	for i, k := range sizes {
		at[i] = sum
		sum += k
		ends[i] = sum
	}
	docs = make([]int32, n)
	for _, d := range order {
		bin := pack[d]
		docs[at[bin]] = d
		at[bin]++
	}
	return docs, ends
}

// byLength returns the documents, the longest first; equals stay in their order.
func byLength(n, capacity int, length func(int) int) []int32 {
	at := make([]int32, capacity+1) // where the documents of a length begin
	for i := range n {
		at[length(i)]++
	}
	sum := int32(0)
	for l := capacity; l >= 0; l-- {
		at[l], sum = sum, sum+at[l]
	}
	out := make([]int32, n)
	for i := range n {
		l := length(i)
		out[at[l]] = int32(i)
		at[l]++
	}
	return out
}

// bins are the packs that have room, by how much they have: a queue for each room.
type bins struct {
	first, last []int32 // by room; first is -1 for none
	next        []int32 // by pack
	some        []uint64
}

func newBins(capacity int) *bins {
	b := &bins{first: make([]int32, capacity+1), last: make([]int32, capacity+1), some: make([]uint64, capacity/64+1)}
	for i := range b.first {
		b.first[i] = -1
	}
	return b
}

// put lines up a pack that has some room left.
func (b *bins) put(bin int32, room int) {
	if room == 0 {
		return
	}
	b.next[bin] = -1
	if b.first[room] < 0 {
		b.first[room] = bin
		b.some[room/64] |= 1 << (room % 64)
	} else {
		b.next[b.last[room]] = bin
	}
	b.last[room] = bin
}

// take returns the pack with the least room that is at least size, -1 if there is none.
func (b *bins) take(size int) (bin int32, room int) {
	word, bit := size/64, size%64
	w := b.some[word] >> bit << bit
	for w == 0 {
		if word++; word == len(b.some) {
			return -1, 0
		}
		w = b.some[word]
	}
	room = word*64 + bits.TrailingZeros64(w)
	bin = b.first[room]
	if b.first[room] = b.next[bin]; b.first[room] < 0 {
		b.some[room/64] &^= 1 << (room % 64)
	}
	return bin, room
}
