package admin_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// numbers collects the ids of a client's events.
func numbers(ids *[]uint64, until uint64) func(admin.Event) error {
	return func(e admin.Event) error {
		*ids = append(*ids, e.ID)
		if e.ID == until {
			return errEnough
		}
		return nil
	}
}

var errEnough = errors.New("enough")

func TestEvents(t *testing.T) {
	s := newSite(t, nil)
	for id := range uint64(3) {
		s.backend.emit(admin.Event{ID: id + 1, Kind: "verdict", Time: time.Now()})
	}
	for _, c := range []*admin.Client{s.client(s.named("monitor.example.net")), s.local()} {
		var got []uint64
		done := make(chan error, 1)
		go func() { done <- c.Events(t.Context(), 1, numbers(&got, 4)) }()
		s.backend.turn(t)
		s.backend.emit(admin.Event{ID: 4, Kind: "camaster", Write: &admin.Write{To: "m3.example.net"}})
		if err := <-done; err != errEnough || fmt.Sprint(got) != "[2 3 4]" {
			t.Errorf("got %v and %v", got, err)
		}
		s.backend.turn(t) // the backend is told that the reader has gone
		s.backend.events = s.backend.events[:3]
	}
}

// The form is what browsers read: WHATWG HTML, 9.2.
func TestEventForm(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *admin.Config) { cfg.Limits.Heartbeat = 20 * time.Millisecond })
	c := s.dial()
	s.backend.emit(admin.Event{ID: 6, Kind: "drain"})
	s.backend.emit(admin.Event{ID: 7, Kind: "drain", Time: time.Unix(1e9, 0), Subject: "m3\nx"})
	// The header is newer than the URL.
	fmt.Fprint(c, "GET /v1/events?after=2 HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 6\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	fatal(t, err)
	defer c.Close()
	if r.Header.Get("Content-Type") != "text/event-stream" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("header: %v", r.Header)
	}
	var lines []string
	comments := 0
	for lines := &lines; comments < 5; {
		line, err := bufio.NewReaderSize(oneByte{r.Body}, 16).ReadString('\n')
		fatal(t, err)
		if strings.HasPrefix(line, ":") {
			comments++
		} else {
			*lines = append(*lines, line)
		}
	}
	got := strings.Join(lines, "")
	want := "id: 7\nevent: drain\ndata: {\"id\":7,\"kind\":\"drain\",\"time\":\"2001-09-09T01:46:40Z\",\"node\":\"\",\"subject\":\"m3\\nx\",\"text\":\"\"}\n\n"
	if !strings.Contains(got, want) || strings.Contains(got, "id: 6") {
		t.Errorf("got %q, want %q", got, want)
	}
}

// oneByte keeps a reader from reading ahead.
type oneByte struct{ io.Reader }

func (r oneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:1]) }

// A stream outlives what bounds other requests.
func TestStreamIsNotTimedOut(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		const bound = 100 * time.Millisecond
		s := newSite(t, func(_ *site, cfg *admin.Config) {
			cfg.Limits.Heartbeat = bound
			cfg.Limits.Write, cfg.Limits.ReadBody, cfg.Limits.Idle = bound, bound, bound
		})
		r, err := s.raw(s.named("ops.example.net"), http2).Get(s.url + "/v1/events")
		fatal(t, err)
		lines := bufio.NewScanner(r.Body)
		for range 12 { // a comment and an empty line for each beat
			if !lines.Scan() {
				t.Fatalf("http2 %v: the stream ended: %v", http2, lines.Err())
			}
		}
		r.Body.Close()
	}
}

func TestEventsAfterWhat(t *testing.T) {
	s := newSite(t, nil)
	c := s.raw(s.named("ops.example.net"), true)
	if a := s.do(c, "GET", "/v1/events?after=-1", ""); a.StatusCode != 400 || !strings.Contains(a.body, "after") {
		t.Errorf("%s %s", a.Status, a.body)
	}
	if a := s.do(c, "GET", "/v1/events", "", "Last-Event-ID", "x"); a.StatusCode != 400 || !strings.Contains(a.body, "Last-Event-ID") {
		t.Errorf("%s %s", a.Status, a.body)
	}
	if a := s.do(c, "HEAD", "/v1/events", ""); a.StatusCode != 200 || a.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%s %v", a.Status, a.Header)
	}
}

// Who does not read is dropped, and the backend is free of it.
func TestSlowReader(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *admin.Config) { cfg.Limits.Stall = 100 * time.Millisecond })
	c, err := net.Dial("unix", s.socket())
	fatal(t, err)
	defer c.Close()
	fmt.Fprint(c, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	s.backend.turn(t)
	large := strings.Repeat("x", 64<<10)
	id := uint64(0)
	eventually(t, "the reader is dropped", func() bool {
		id++
		return !s.backend.emit(admin.Event{ID: id, Text: large})
	})
	if len(s.journal.with("does not read")) != 1 {
		t.Errorf("log: %q", s.journal.lines)
	}
}

func TestQueueIsBounded(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *admin.Config) { cfg.Limits.Queue = 4 })
	for id := range uint64(5) {
		s.backend.emit(admin.Event{ID: id + 1})
	}
	err := s.local().Events(t.Context(), 0, func(admin.Event) error { return nil })
	var gone *admin.UnreachableError
	if !errors.As(err, &gone) || len(s.journal.with("4 events waited")) != 1 {
		t.Errorf("got %v, log %q", err, s.journal.lines)
	}
	var got []uint64
	if err := s.local().Events(t.Context(), 1, numbers(&got, 5)); err != errEnough {
		t.Errorf("four fit: %v, got %v", err, got)
	}
}

func TestTooManyStreams(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *admin.Config) { cfg.Limits.Streams = 16 }) // 2 for each actor
	ops := s.client(s.named("ops.example.net"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- ops.Events(ctx, 0, func(admin.Event) error { return nil }) }()
		s.backend.turn(t)
	}
	err := ops.Events(ctx, 0, func(admin.Event) error { return nil })
	wantFault(t, err, 503, "too-many-streams", "2 of ops.example.net")
	var got []uint64
	s.backend.emit(admin.Event{ID: 1})
	if err := s.local().Events(t.Context(), 0, numbers(&got, 1)); err != errEnough {
		t.Errorf("another actor: %v", err)
	}
	cancel()
	for range 2 {
		if err := <-done; err != context.Canceled {
			t.Errorf("got %v", err)
		}
	}
	// More often than there are places.
	for range 40 {
		eventually(t, "the places are free again", func() bool {
			return ops.Events(t.Context(), 0, func(admin.Event) error { return errEnough }) == errEnough
		})
	}
}

func TestCloseEndsStreams(t *testing.T) {
	s := newSite(t, nil)
	for _, c := range []*admin.Client{s.client(s.named("ops.example.net")), s.local()} {
		done := make(chan error, 1)
		go func() { done <- c.Events(t.Context(), 0, func(admin.Event) error { return nil }) }()
		s.backend.turn(t)
		defer func() {
			err := <-done
			var gone *admin.UnreachableError
			if !errors.As(err, &gone) {
				t.Errorf("got %v, want an UnreachableError", err)
			}
		}()
	}
	// One that never asks does not hold it up, and one that waits is waited for.
	c, err := net.Dial("unix", s.socket())
	fatal(t, err)
	defer c.Close()
	entered := make(chan struct{})
	release := make(chan struct{})
	s.backend.wait = func(context.Context) error { close(entered); <-release; return nil }
	written := make(chan error, 1)
	go func() { _, err := s.local().AddKey(t.Context()); written <- err }()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- s.close() }()
	s.backend.turn(t) // the streams end first
	s.backend.turn(t)
	select {
	case err := <-closed:
		t.Fatalf("closed with a request under way: %v", err)
	default:
	}
	close(release)
	fatal(t, <-written)
	start := time.Now()
	fatal(t, <-closed)
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("Close took %s after the last request", d)
	}
}

func TestCloseCutsOff(t *testing.T) {
	s := newSite(t, nil)
	entered := make(chan struct{})
	s.backend.wait = func(ctx context.Context) error { close(entered); <-ctx.Done(); return ctx.Err() }
	written := make(chan error, 1)
	go func() { _, err := s.local().AddKey(t.Context()); written <- err }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.server.Close(ctx); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("got %v", err)
	}
	if err := <-written; err == nil || !strings.Contains(err.Error(), "history") {
		t.Errorf("the client is told %v, want that the write may have been done", err)
	}
	s.server = newSite(t, nil).server // for the cleanup, which wants no error
}

// A reload of the Corefile has a new backend and the same streams.
func TestSetBackendKeepsStreams(t *testing.T) {
	s := newSite(t, nil)
	var got []uint64
	done := make(chan error, 1)
	s.backend.emit(admin.Event{ID: 1})
	first := make(chan struct{})
	go func() {
		f := numbers(&got, 3)
		done <- s.local().Events(t.Context(), 0, func(e admin.Event) error {
			if e.ID == 1 {
				close(first)
			}
			return f(e)
		})
	}()
	<-first
	next := newBackend()
	for id := range uint64(3) {
		next.emit(admin.Event{ID: id + 1})
	}
	s.server.SetBackend(next)
	if err := <-done; err != errEnough || fmt.Sprint(got) != "[1 2 3]" {
		t.Errorf("got %v and %v", got, err)
	}
}

// A stream does not outlive the right to it.
func TestRevokedWhileReading(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(_ *site, cfg *admin.Config) { cfg.Limits.Heartbeat = 50 * time.Millisecond })
	id := s.named("ops.example.net")
	done := make(chan error, 1)
	go func() { done <- s.client(id).Events(t.Context(), 0, func(admin.Event) error { return nil }) }()
	s.backend.turn(t)
	s.revoke(id)
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("the stream goes on")
	}
	if len(s.journal.with("revoked")) == 0 {
		t.Errorf("log: %q", s.journal.lines)
	}
}
