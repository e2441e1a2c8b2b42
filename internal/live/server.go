package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed18967229/nibble/internal/hint"
)

// What a Server takes at most.
const (
	maxConns    = 64
	maxWatchers = 16
	maxHeader   = 16 << 10
)

// Times of a Server.
const (
	writeWithin = 10 * time.Second // who takes longer to take what is sent is cut off
	breath      = 100 * time.Millisecond
	heartbeat   = 15 * time.Second
	farewell    = 2 * time.Second // for the news that the run has ended
)

// Server sends the page of a Board to browsers.
type Server struct {
	listener net.Listener
	hosts    hosts
	http     http.Server
	board    *Board
	run      string // tells the events of this run from those of another on the same port
	slots    chan struct{}
	done     chan struct{}
	served   sync.WaitGroup
}

// Listen takes an address, of which a port alone is on the loopback interface. Nothing is
// answered before Serve.
func Listen(addr string) (*Server, error) {
	host, port, err := split(addr)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, hint.Add(err, "choose another port, or :0 for any that is free")
	}
	return &Server{
		listener: &limited{Listener: l, max: maxConns}, hosts: hostsOf(host), run: strconv.FormatUint(rand.Uint64(), 36),
		slots: make(chan struct{}, maxWatchers), done: make(chan struct{}),
	}, nil
}

// URL is where the page is.
func (s *Server) URL() string {
	addr := s.listener.Addr().(*net.TCPAddr)
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(addr.Port)) + "/"
}

// Open reports whether other machines can reach the page.
func (s *Server) Open() bool { return !s.listener.Addr().(*net.TCPAddr).IP.IsLoopback() }

// Serve answers from a Board, until Close.
func (s *Server) Serve(b *Board) {
	s.board = b
	b.watch()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /events", s.events)
	s.http = http.Server{
		Handler: s.guard(mux), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(io.Discard, "", 0), // what clients do wrong is no matter of the run
	}
	s.served.Go(func() { _ = s.http.Serve(s.listener) })
}

// Close ends the server, when those who watch have heard how the run ended, or after a
// moment.
func (s *Server) Close() error {
	close(s.done)
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	if cerr := s.listener.Close(); !errors.Is(cerr, net.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	s.served.Wait()
	return err
}

// guard turns away whatever is not the page asking.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !s.hosts.allow(r.Host) {
			http.Error(w, "this page is not served under that name", http.StatusForbidden)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
			http.Error(w, "asked for by another page", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	b, err := render(s.board.title(), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeWithin))
	_, _ = w.Write(b)
}

// events sends the whole, and then what changes, as server-sent events.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d pages watch already", maxWatchers), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	seen := s.seen(r.Header.Get("Last-Event-ID"))
	fmt.Fprint(w, "retry: 2000\n\n")
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		n := s.board.after(seen)
		seen = n.seq
		var b bytes.Buffer
		if n.whole != nil {
			fmt.Fprintf(&b, "id: %s-%d\nevent: whole\ndata: %s\n\n", s.run, n.seq, encode(n.whole))
		}
		for i, c := range n.changes {
			fmt.Fprintf(&b, "id: %s-%d\nevent: change\ndata: %s\n\n", s.run, n.seq-int64(len(n.changes)-1-i), c)
		}
		if b.Len() == 0 {
			b.WriteString(":\n\n")
		}
		_ = rc.SetWriteDeadline(time.Now().Add(writeWithin))
		if _, err := w.Write(b.Bytes()); err != nil || rc.Flush() != nil || n.ended {
			return
		}
		select {
		case <-n.more:
			select { // what comes in quick succession goes together
			case <-time.After(breath):
			case <-s.done:
			}
		case <-beat.C:
		case <-r.Context().Done():
			return
		case <-s.done:
			// The Board says how the run ended before that; here it never will.
			if last := s.board.after(seen); last.seq == seen {
				return
			}
		}
	}
}

// seen returns the number in a Last-Event-ID, -1 if it is not of this run.
func (s *Server) seen(id string) int64 {
	run, digits, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(digits, 10, 64)
	if run != s.run || err != nil || n < 0 {
		return -1
	}
	return n
}

func (b *Board) title() string { return b.all.Run.Title } // never changes

// limited is a listener that takes so many connections at a time, and drops others.
type limited struct {
	net.Listener
	max  int64
	open atomic.Int64
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.max {
			return &counted{Conn: c, done: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
		l.open.Add(-1)
		c.Close()
	}
}

type counted struct {
	net.Conn
	done func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.done()
	return c.Conn.Close()
}
