package tensor

// KV is one entry of a file's metadata. In safetensors a Value is a string; in
// GGUF it is one of bool, string, the sized integers and floats, or a slice of
// one of them.
type KV struct {
	Key   string
	Value any
}

// Meta is a file's metadata in the order of the file. Keys are unique.
type Meta []KV

// Get returns the value of a key and whether there is one.
func (m Meta) Get(key string) (any, bool) {
	for _, kv := range m {
		if kv.Key == key {
			return kv.Value, true
		}
	}
	return nil, false
}

// Lookup returns the value of a key if it is present with exactly that type.
func Lookup[T any](m Meta, key string) (T, bool) {
	v, _ := m.Get(key)
	t, ok := v.(T)
	return t, ok
}
