package admin_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// dial is a TLS connection with a certificate that may do everything.
func (s *site) dial() *tls.Conn {
	s.t.Helper()
	id := s.named("ops.example.net")
	c, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{
		RootCAs: s.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{id.Certificate}})
	fatal(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	fatal(s.t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

// read reads one HTTP/1 response.
func read(t *testing.T, c net.Conn) (status int, body string) {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	fatal(t, err)
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	fatal(t, err)
	return r.StatusCode, string(data)
}

func TestLargeBody(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for _, http2 := range []bool{false, true} {
		c := s.raw(s.named("ops.example.net"), http2)
		start, end := `{"host": "m3.example.net", "expect": "0", "reason": "drill"`, `}`
		fits := start + strings.Repeat(" ", 64<<10-len(start)-len(end)) + end
		if a := s.do(c, "PUT", "/v1/camaster", fits); a.StatusCode != 200 {
			t.Errorf("64 KiB: %s %s", a.Status, a.body)
		}
		if a := s.do(c, "PUT", "/v1/camaster", fits+" "); a.StatusCode != 413 || !strings.Contains(a.body, "body-too-large") {
			t.Errorf("more: %s %s", a.Status, a.body)
		}
	}
}

func TestSlowBody(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *admin.Config) { cfg.Limits.ReadBody = 100 * time.Millisecond })
	for _, path := range []string{"/v1/camaster", "/v1/nothing"} { // wanted, and not wanted
		c := s.dial()
		fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", path)
		status, body := read(t, c)
		if path == "/v1/camaster" && (status != 408 || !strings.Contains(body, "body-too-slow")) {
			t.Errorf("%d %s", status, body)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: the connection was not closed: %v", path, err)
		}
	}
}

// The bound for a body is none for the wait of a write, or of a stream.
func TestLongWait(t *testing.T) {
	t.Parallel()
	const bound = 50 * time.Millisecond
	s := newSite(t, func(_ *site, cfg *admin.Config) { cfg.Limits.ReadBody = bound })
	s.backend.wait = func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(4 * bound):
			return nil
		}
	}
	for _, http2 := range []bool{false, true} {
		a := s.do(s.raw(s.named("ops.example.net"), http2), "PUT", "/v1/drains/m3", `{"reason": "drill"}`)
		if a.StatusCode != 200 {
			t.Errorf("%s %s", a.Status, a.body)
		}
	}
	// An empty body in chunks is none either.
	c := s.dial()
	fmt.Fprint(c, "POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	if status, body := read(t, c); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

// A backend that does not end is given up in time for an answer.
func TestBackendHangs(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *admin.Config) { cfg.Limits.Write = 300 * time.Millisecond })
	s.backend.wait = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	_, err := s.client(s.named("ops.example.net")).AddKey(t.Context())
	wantFault(t, err, 504, "timeout", "history")
}

func TestSlowHeaderAndIdle(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *admin.Config) {
		cfg.Limits.ReadHeader = 100 * time.Millisecond
		cfg.Limits.Idle = 100 * time.Millisecond
	})
	t.Run("header", func(t *testing.T) {
		c := s.dial()
		fmt.Fprint(c, "GET /v1/status HTTP/1.1\r\nHost: ")
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("not closed: %v", err)
		}
	})
	t.Run("handshake", func(t *testing.T) {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "https://"))
		fatal(t, err)
		defer c.Close()
		fatal(t, c.SetDeadline(time.Now().Add(patience)))
		if _, err := io.ReadAll(c); errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("not closed: %v", err)
		}
	})
	t.Run("idle", func(t *testing.T) {
		c := s.dial()
		fmt.Fprint(c, "GET /v1/camaster HTTP/1.1\r\nHost: localhost\r\n\r\n")
		read(t, c)
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("not closed: %v", err)
		}
	})
}

func TestLargeHeader(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	header := func(n int) int {
		return s.do(s.raw(s.named("ops.example.net"), false), "GET", "/v1/camaster", "", "X-Large", strings.Repeat("x", n)).StatusCode
	}
	if got := header(8 << 10); got != 200 {
		t.Errorf("8 KiB: %d", got)
	}
	if got := header(17 << 10); got != 431 {
		t.Errorf("17 KiB: %d", got)
	}
}

func TestTooManyConnections(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *admin.Config) { cfg.Limits.Connections = 2 })
	get := func(c *tls.Conn) int {
		fmt.Fprint(c, "GET /v1/camaster HTTP/1.1\r\nHost: localhost\r\n\r\n")
		status, _ := read(t, c)
		return status
	}
	first, second := s.dial(), s.dial()
	if get(first) != 200 || get(second) != 200 {
		t.Fatal("two connections are not served")
	}
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "https://"))
	fatal(t, err)
	defer c.Close()
	fatal(t, c.SetDeadline(time.Now().Add(patience)))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the third is not closed: %v", err)
	}
	if len(s.journal.with("2 connections are open")) != 1 {
		t.Errorf("the log does not say so: %q", s.journal.lines)
	}
	// The machine's own operator is not locked out by the network.
	if _, err := s.local().Camaster(t.Context()); err != nil {
		t.Errorf("unix socket: %v", err)
	}
	first.Close()
	eventually(t, "the place of a closed connection is free", func() bool {
		_, err := s.client(s.named("ops.example.net")).Camaster(t.Context())
		return err == nil
	})
}

func TestRates(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *admin.Config) {
		cfg.Limits.Reads = admin.Rate{PerSecond: 0.1, Burst: 3}
		cfg.Limits.Writes = admin.Rate{PerSecond: 0.1, Burst: 2}
	})
	ops, monitor := s.raw(s.named("ops.example.net"), true), s.raw(s.named("monitor.example.net"), true)
	codes := func(c *http.Client, method, path string, n int) (got []int, last answer) {
		for range n {
			last = s.do(c, method, path, "")
			got = append(got, last.StatusCode)
		}
		return got, last
	}
	got, last := codes(ops, "GET", "/v1/camaster", 4)
	if fmt.Sprint(got) != "[200 200 200 429]" || !strings.Contains(last.body, "ops.example.net: the bound is 0.1 reads") {
		t.Errorf("reads: %v %s", got, last.body)
	}
	if s, err := strconv.Atoi(last.Header.Get("Retry-After")); err != nil || s < 1 || s > 10 {
		t.Errorf("Retry-After: %q", last.Header.Get("Retry-After"))
	}
	if got, last := codes(ops, "POST", "/v1/keys", 3); fmt.Sprint(got) != "[200 200 429]" || !strings.Contains(last.body, "0.1 writes") {
		t.Errorf("writes have a bound of their own: %v %s", got, last.body)
	}
	if got, _ := codes(monitor, "GET", "/v1/camaster", 1); got[0] != 200 {
		t.Errorf("another actor: %v", got)
	}
	if got, _ := codes(monitor, "GET", "/v1/nothing", 3); fmt.Sprint(got) != "[404 404 429]" {
		t.Errorf("what is not there: %v", got)
	}
	if got, _ := codes(s.raw(nil, false), "GET", "/v1/camaster", 4); fmt.Sprint(got) != "[403 403 403 429]" {
		t.Errorf("strangers: %v", got)
	}
	// A certname like a user's has no part in the user's tokens.
	me, err := user.Current()
	fatal(t, err)
	s.server.SetAllow(admin.Allow{Read: []string{me.Username}})
	codes(s.raw(s.named(me.Username), false), "GET", "/v1/camaster", 4)
	if _, err := s.local().Camaster(t.Context()); err != nil {
		t.Errorf("unix socket: %v", err)
	}
}

func TestGarbage(t *testing.T) {
	s := newSite(t, nil)
	address := strings.TrimPrefix(s.url, "https://")
	send := func(data string) string {
		c, err := net.Dial("tcp", address)
		fatal(t, err)
		defer c.Close()
		fatal(t, c.SetDeadline(time.Now().Add(patience)))
		fmt.Fprint(c, data)
		got, _ := io.ReadAll(c)
		return string(got)
	}
	if got := send("GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 400 ") || !strings.Contains(got, "HTTP request to an HTTPS server") {
		t.Errorf("plain HTTP: %q", got)
	}
	for range 50 {
		send("\x00\xff garbage \r\n\r\n")
	}
	c := s.dial()
	fmt.Fprint(c, "\x00\xff garbage \r\n\r\n")
	if status, _ := read(t, c); status != 400 {
		t.Errorf("garbage in TLS: %d", status)
	}
	if _, err := s.client(s.named("ops.example.net")).Camaster(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if n := len(s.journal.with("TLS handshake")); n == 0 || n > 10 {
		t.Errorf("%d lines in the log for 51 bad handshakes", n)
	}
}

func TestOldTLS(t *testing.T) {
	s := newSite(t, nil)
	_, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{RootCAs: s.ca.Pool(), ServerName: "localhost", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

func TestPanic(t *testing.T) {
	s := newSite(t, nil)
	s.backend.wait = func(context.Context) error { panic("the secret of the backend") }
	c := s.client(s.named("ops.example.net"))
	_, err := c.AddKey(t.Context())
	wantFault(t, err, 500, "internal", "log")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("told to the client: %v", err)
	}
	lines := s.journal.with("the secret of the backend")
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "ERROR") || !strings.Contains(lines[0], "goroutine") {
		t.Errorf("got %q, want an error with its stack", lines)
	}
	if _, err := c.Camaster(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestBackendErrors(t *testing.T) {
	s := newSite(t, nil)
	c := s.client(s.named("ops.example.net"))
	fault := &admin.Fault{Status: 409, Type: "version-conflict", Title: "It is another", Detail: "m2 is camaster since 0.4.ns1",
		Rules: []string{"one"}, Current: &admin.Camaster{Host: "m2.example.net"}}
	s.backend.err = fmt.Errorf("setting: %w", fault)
	_, err := c.SetCamaster(t.Context(), admin.SetCamaster{Host: "m3", Reason: "drill", Expect: "0"})
	wantFault(t, err, 409, "version-conflict", "m2 is camaster")
	var got *admin.Fault
	if !errors.As(err, &got) || len(got.Rules) != 1 || got.Current == nil || got.Current.Host != "m2.example.net" {
		t.Errorf("got %+v", got)
	}
	s.backend.err = errors.New("open /var/lib/x: secret")
	_, err = c.AddKey(t.Context())
	wantFault(t, err, 500, "internal")
	if strings.Contains(err.Error(), "secret") || len(s.journal.with("ERROR admin: POST")) != 1 {
		t.Errorf("got %v, and in the log %q", err, s.journal.lines)
	}
	s.backend.err = &admin.Fault{Detail: "half a fault"}
	_, err = c.AddKey(t.Context())
	wantFault(t, err, 500, "refused", "half a fault")
}
