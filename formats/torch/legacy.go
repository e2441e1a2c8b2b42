package torch

import (
	"encoding/binary"
	"io"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
)

// legacyVersion is PROTOCOL_VERSION in torch/serialization.py.
const legacyVersion = int64(1001)

// legacy is a checkpoint of the old format while it is read.
type legacy struct {
	// storages are as the pickle first names them, by key.
	storages map[string]*storage
}

func readLegacy(r io.ReaderAt, size int64) (content, error) {
	in := newInput(r, 0, size)
	l := &legacy{make(map[string]*storage)}
	var parts [5]any // magic number, version, facts about the machine, object, keys
	for i := range parts {
		var load func([]any) (any, error)
		if i == 3 {
			load = l.storage
		}
		v, err := unpickle(in, load)
		if err != nil {
			return content{}, err
		}
		parts[i] = v
	}
	if parts[0] != long(legacyMagic) || parts[1] != legacyVersion {
		return content{}, malformed("not PyTorch's magic number and version %d", legacyVersion)
	}
	keys, ok := parts[4].(*list)
	if !ok {
		return content{}, malformed("%s where the keys of the storages must be", describe(parts[4]))
	}
	return content{root: parts[3]}, l.place(keys.items, r, size-in.left, size)
}

// place finds the storages, which follow each other from at on, each behind the
// number of its elements.
func (l *legacy) place(keys []any, r io.ReaderAt, at, size int64) error {
	placed := make(map[string]bool, len(keys))
	for _, k := range keys {
		key, _ := k.(string)
		s := l.storages[key]
		if s == nil || placed[key] {
			return malformed("%s as the key of a storage: it must be one that a tensor has, and occur once", keyText(k))
		}
		placed[key] = true
		var b [8]byte
		if size-at < int64(len(b)) {
			return truncated(key, size)
		}
		if n, err := r.ReadAt(b[:], at); n < len(b) {
			return unexpected(err)
		}
		n := binary.LittleEndian.Uint64(b[:])
		if n != uint64(s.bytes/s.dtype.size) {
			return malformed("storage %q has %d elements, the pickle says %d", short(key), n, s.bytes/s.dtype.size)
		}
		s.at = at + int64(len(b))
		end, ok := safeio.Add(s.at, s.bytes)
		if !ok || end > size {
			return truncated(key, size)
		}
		at = end
	}
	for key := range l.storages {
		if !placed[key] {
			return malformed("storage %q is not in the file", short(key))
		}
	}
	return nil
}

func truncated(key string, size int64) error {
	return hint.Add(malformed("truncated: storage %q goes beyond the end of the file at byte %d", short(key), size), "download or copy the file again")
}

func keyText(v any) string {
	if s, ok := v.(string); ok {
		return short(s)
	}
	return describe(v)
}

// storage returns the storage of a persistent id: that of the zip format, and
// then None or key, offset and size in elements of a view, which old versions
// had.
func (l *legacy) storage(id []any) (any, error) {
	s, err := parseStorage(id, 6)
	if err != nil {
		return nil, err
	}
	root := l.storages[s.key]
	switch {
	case root == nil:
		root = s
		l.storages[s.key] = s
	case root.bytes != s.bytes:
		return nil, malformed("storage %q has %d bytes and %d", short(s.key), root.bytes, s.bytes)
	}
	if id[5] == nil {
		return &storage{key: s.key, dtype: s.dtype, bytes: s.bytes, root: root}, nil
	}
	return l.view(id[5], s.dtype, root)
}

func (l *legacy) view(v any, d *dtype, root *storage) (any, error) {
	t, ok := v.(*tuple)
	if !ok || len(t.items) != 3 {
		return nil, malformed("%s as the view of a storage", describe(v))
	}
	key, ok := t.items[0].(string)
	if !ok {
		return nil, malformed("%s as the key of a storage's view", describe(t.items[0]))
	}
	offset, err := natural(t.items[1], "a storage view's offset")
	if err != nil {
		return nil, err
	}
	n, err := natural(t.items[2], "a storage view's size")
	if err != nil {
		return nil, err
	}
	at, ok := safeio.Mul(offset, d.size)
	bytes, also := safeio.Mul(n, d.size)
	end, and := safeio.Add(at, bytes)
	if !ok || !also || !and || end > root.bytes {
		return nil, malformed("%d elements from %d on in storage %q, which has %d bytes", n, offset, short(root.key), root.bytes)
	}
	return &storage{key: key, dtype: d, bytes: bytes, at: at, root: root}, nil
}
