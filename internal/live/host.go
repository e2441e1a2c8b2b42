package live

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// loopback is where a port alone is listened on.
const loopback = "127.0.0.1"

// split takes an address apart: PORT, :PORT or HOST:PORT.
func split(addr string) (host, port string, err error) {
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	host, port, err = net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", "", fmt.Errorf("%q is no address to listen on: write :8080, or HOST:8080 for others than this machine", addr)
	}
	if host == "" {
		host = loopback
	}
	return host, port, nil
}

// hosts are the names under which the page may be asked for, beside addresses. A page from
// elsewhere can have its own name point to this machine, and would read what is here; it
// cannot have an address for a name.
type hosts []string

// hostsOf returns the names for a host that is listened on.
func hostsOf(host string) hosts {
	h := hosts{"localhost", strings.ToLower(host)}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		return h
	}
	if name, err := os.Hostname(); err == nil {
		h = append(h, strings.ToLower(name))
	}
	return h
}

// allow reports whether the Host of a request is one of these names or an address.
func (h hosts) allow(host string) bool {
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	return name != "" && slices.Contains(h, name)
}

// Check reports what is wrong with an address for Listen.
func Check(addr string) error {
	_, _, err := split(addr)
	return err
}
