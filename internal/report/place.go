package report

import "strings"

// A place is where in the model a tensor is: its layer, -1 outside the layers, and the
// module that layers have in common. The experts of a layer are in one place.
type place struct {
	layer  int
	module string
}

// maxLayers bounds the columns of the picture; a larger number in a name is part of a
// name.
const maxLayers = 1000

// places reads the places of tensors off their names: the first number is that of the
// layer. What stands before it is left out for the stack that most tensors are in, and
// told apart for others.
func places(names []string) []place {
	count := make(map[string]int)
	main := ""
	for _, n := range names {
		if prefix, layer, _ := cutLayer(n); layer >= 0 {
			count[prefix]++
			if count[prefix] > count[main] {
				main = prefix
			}
		}
	}
	out := make([]place, len(names))
	for i, n := range names {
		prefix, layer, rest := cutLayer(n)
		if layer >= 0 && prefix != main {
			rest = prefix + "." + rest
		}
		out[i] = place{layer, strings.TrimSuffix(rest, ".weight")}
	}
	return out
}

// cutLayer cuts a name at the number of its layer. Numbers behind it, those of experts,
// are left out.
func cutLayer(name string) (prefix string, layer int, rest string) {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		if n, ok := number(p); ok && i > 0 {
			var after []string
			for _, q := range parts[i+1:] {
				if _, ok := number(q); !ok {
					after = append(after, q)
				}
			}
			return strings.Join(parts[:i], "."), n, strings.Join(after, ".")
		}
	}
	return "", -1, name
}

func number(s string) (n int, ok bool) {
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = 10*n + int(c-'0'); n >= maxLayers {
			return 0, false
		}
	}
	return n, s != ""
}

// Group returns what the experts of a module of a layer have in common and other tensors
// have for themselves: the name without the numbers behind that of the layer.
func Group(name string) string {
	prefix, layer, rest := cutLayer(name)
	if layer < 0 {
		return name
	}
	head := name[:len(name)-len(strings.TrimPrefix(name, prefix+"."))]
	number, _, _ := strings.Cut(name[len(head):], ".")
	return head + number + "." + rest
}
