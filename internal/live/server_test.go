package live

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
)

func serve(t *testing.T, b *Board) *Server {
	t.Helper()
	s, err := Listen(":0")
	require.NoError(t, err)
	s.Serve(b)
	t.Cleanup(func() {
		select {
		case <-s.done:
		default:
			s.Close()
		}
	})
	return s
}

// event is a server-sent event.
type event struct{ id, name, data string }

// watch reads events until the stream ends.
func watch(t *testing.T, s *Server, lastID string) <-chan event {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL()+"events", nil)
	require.NoError(t, err)
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	out := make(chan event, 10_000)
	go func() {
		defer close(out)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<22)
		var e event
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				e.data = value
			case "":
				if e.name != "" {
					out <- e
				}
				e = event{}
			}
		}
	}()
	return out
}

func next(t *testing.T, c <-chan event) event {
	t.Helper()
	select {
	case e, ok := <-c:
		require.True(t, ok, "the stream ended")
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event came")
	}
	panic("unreachable")
}

func TestEvents(t *testing.T) {
	b := NewBoard(Run{Title: "a run", Steps: 5})
	b.Add(step(1))
	s := serve(t, b)
	first := watch(t, s, "")
	e := next(t, first)
	require.Equal(t, "whole", e.name)
	var p picture
	require.NoError(t, json.Unmarshal([]byte(e.data), &p))
	require.Len(t, p.Points, 1, "the history comes first")
	require.Equal(t, "a run", p.Run.Title)

	b.Add(step(2))
	e2 := next(t, first)
	require.Equal(t, "change", e2.name)
	b.Add(step(3))
	b.Add(step(4))
	require.Equal(t, "change", next(t, first).name)

	// Who comes back is sent what it has missed, and who was never here the whole.
	back := watch(t, s, e2.id)
	for _, want := range []int{3, 4} {
		e := next(t, back)
		require.Equal(t, "change", e.name)
		var c change
		require.NoError(t, json.Unmarshal([]byte(e.data), &c))
		require.Equal(t, want, c.Step)
	}
	for _, id := range []string{"other-2", "junk", s.run + "-99999", s.run + "--5", s.run + "-9223372036854775808"} {
		require.Equal(t, "whole", next(t, watch(t, s, id)).name, id)
	}

	b.End(Finished, "")
	require.NoError(t, s.Close())
	var last event
	for e := range back {
		last = e
	}
	require.Equal(t, "whole", last.name)
	require.NoError(t, json.Unmarshal([]byte(last.data), &p))
	require.Equal(t, Finished, p.Status, "the stream ends with how the run ended")
	_, err := http.Get(s.URL())
	require.Error(t, err)
}

func get(t *testing.T, s *Server, method, path string, header map[string]string) *http.Response {
	t.Helper()
	r, err := http.NewRequest(method, s.URL()+path, nil)
	require.NoError(t, err)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	r.Host = header["Host"]
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	resp.Body.Close()
	return resp
}

func TestWhoMayAsk(t *testing.T) {
	b := NewBoard(Run{Title: "<a run>"})
	s := serve(t, b)
	require.False(t, s.Open())
	port := strings.TrimSuffix(s.URL()[strings.LastIndex(s.URL(), ":"):], "/")
	for _, path := range []string{"", "events"} {
		for _, c := range []struct {
			host, origin string
			code         int
		}{
			{"", "", 200},
			{"localhost" + port, "", 200},
			{"LOCALHOST" + port, "http://LOCALHOST" + port, 200},
			{"127.0.0.1" + port, "http://127.0.0.1" + port, 200},
			{"[::1]" + port, "", 200},
			{"evil.example" + port, "", 403},
			{"localhost.evil.example", "", 403},
			{"127.0.0.1.evil.example" + port, "", 403},
			{"localhost" + port, "http://evil.example", 403},
			{"localhost" + port, "https://localhost" + port, 403},
			{"localhost" + port, "http://localhost:1", 403},
			{"localhost" + port, "null", 403},
		} {
			h := map[string]string{"Host": c.host}
			if c.origin != "" {
				h["Origin"] = c.origin
			}
			require.Equal(t, c.code, get(t, s, "GET", path, h).StatusCode, "%s %+v", path, c)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		require.Equal(t, 405, get(t, s, method, "", nil).StatusCode, method)
		require.Equal(t, 405, get(t, s, method, "events", nil).StatusCode, method)
	}
	require.Equal(t, 404, get(t, s, "GET", "../../etc/passwd", nil).StatusCode)
	require.Equal(t, 404, get(t, s, "GET", "other", nil).StatusCode)

	resp, err := http.Get(s.URL())
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(text), "&lt;a run&gt;")
	require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
	require.Empty(t, resp.Header.Get("Access-Control-Allow-Origin"))
}

func TestWatchersAreBounded(t *testing.T) {
	s := serve(t, NewBoard(Run{}))
	for range maxWatchers {
		require.Equal(t, "whole", next(t, watch(t, s, "")).name)
	}
	require.Equal(t, 503, get(t, s, "GET", "events", nil).StatusCode)
	require.Equal(t, 200, get(t, s, "GET", "", nil).StatusCode, "the page itself is still there")

	// Connections that ask for nothing are bounded too.
	dropped := 0
	for range maxConns {
		c, err := net.Dial("tcp", s.listener.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err == io.EOF {
			dropped++
		}
		if dropped > 3 {
			break
		}
	}
	require.Greater(t, dropped, 3)
}

// A watcher that takes nothing of what it is sent holds nobody up, and does not hold the
// server's end up for long.
func TestSlowWatcher(t *testing.T) {
	b := NewBoard(Run{})
	s := serve(t, b)
	c, err := net.Dial("tcp", s.listener.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	start := time.Now()
	long := strings.Repeat("x", maxText)
	for i := 1; i <= 20_000; i++ {
		st := step(i)
		st.Notes = []string{long}
		b.Add(st)
	}
	require.Less(t, time.Since(start), 8*time.Second)
	require.LessOrEqual(t, len(b.missed), maxMissed)
	b.End(Finished, "")
	start = time.Now()
	require.NoError(t, s.Close())
	require.Less(t, time.Since(start), farewell+3*time.Second)
}

func TestListen(t *testing.T) {
	s, err := Listen("0")
	require.NoError(t, err)
	defer s.listener.Close()
	require.True(t, strings.HasPrefix(s.URL(), "http://127.0.0.1:"), s.URL())
	_, err = Listen(s.listener.Addr().String())
	require.ErrorContains(t, err, "address already in use")
	require.Contains(t, hint.Of(err), ":0")
	require.NoError(t, s.Close(), "though it never served")

	for _, addr := range []string{"", ":", "x", ":x", "1:2:3", ":65536", ":-1", "host:"} {
		require.Error(t, Check(addr), addr)
		_, err := Listen(addr)
		require.Error(t, err, addr)
	}
	for _, addr := range []string{"8080", ":8080", "0.0.0.0:1", "[::1]:8080", "host:0"} {
		require.NoError(t, Check(addr), addr)
	}

	s, err = Listen("0.0.0.0:0")
	require.NoError(t, err)
	require.True(t, s.Open())
	require.True(t, strings.HasPrefix(s.URL(), "http://localhost:"))
	require.NoError(t, s.Close())
}

func TestHosts(t *testing.T) {
	h := hostsOf("Box.lan")
	for host, want := range map[string]bool{
		"box.lan:80": true, "BOX.LAN": true, "box.lan.:80": true, "localhost": true, "10.0.0.7:8080": true, "[fe80::1]:80": true,
		"": false, ":80": false, "box": false, "box.lan.evil": false, "a.b:80": false,
	} {
		require.Equal(t, want, h.allow(host), host)
	}
}

// Whatever a Host says, it is answered only if it is an address or a name of this machine.
func FuzzAllow(f *testing.F) {
	for _, s := range []string{"localhost:8080", "127.0.0.1", "[::1]:80", "evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", ":80", "[localhost]", "\x00"} {
		f.Add(s)
	}
	h := hostsOf("127.0.0.1")
	f.Fuzz(func(t *testing.T, host string) {
		if !h.allow(host) {
			return
		}
		name := host
		if n, _, err := net.SplitHostPort(host); err == nil {
			name = n
		}
		name = strings.Trim(strings.TrimSuffix(strings.ToLower(name), "."), "[]")
		zoneless, _, _ := strings.Cut(name, "%")
		if name != "localhost" && net.ParseIP(zoneless) == nil {
			t.Fatalf("%q is answered", host)
		}
	})
}
