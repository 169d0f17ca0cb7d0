package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Permissions do not stop root, who runs tests as often as not; so the error is
// made by hand here.
func TestPermissionDenied(t *testing.T) {
	c, err := NewClient("unix:///run/puppetsrv/admin.sock", ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	denied := &url.Error{Op: "Get", Err: &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}}
	err = c.explain(t.Context(), "PUT", denied)
	var u *UnreachableError
	if !errors.As(err, &u) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "group of the socket") || strings.Contains(err.Error(), "history") {
		t.Errorf("got %v", err)
	}
}

func TestBucketsAreBounded(t *testing.T) {
	now := time.Now()
	r := newRates(Limits{}.withDefaults())
	for i := range 3 * maxActors {
		r.take(string(rune('a'+i)), false, now)
		if len(r.buckets) > maxActors {
			t.Fatalf("%d buckets", len(r.buckets))
		}
	}
	// A bucket that is full is as good as none; one that is not stays.
	r = newRates(Limits{}.withDefaults())
	for i := range maxActors - 1 {
		r.take(string(rune('a'+i)), false, now)
	}
	now = now.Add(time.Hour)
	for range r.write.Burst {
		if _, ok := r.take("busy", true, now); !ok {
			t.Fatal("refused too early")
		}
	}
	r.take("one more", false, now)
	if wait, ok := r.take("busy", true, now); ok || wait <= 0 || wait > time.Second {
		t.Errorf("the busy one has a new bucket: %v %v", wait, ok)
	}
	if len(r.buckets) != 2 {
		t.Errorf("%d buckets, want the busy one and one more", len(r.buckets))
	}
}

func TestLogIsBounded(t *testing.T) {
	l := &counter{}
	q := newQuietLog(l)
	for i := range 10 * maxStrangers {
		q.warn(string(rune('a'+i)), "x")
	}
	if len(q.strangers) > maxStrangers || l.n > 2*allBurst {
		t.Errorf("%d strangers kept, %d lines written", len(q.strangers), l.n)
	}
}

type counter struct {
	Logger
	n int
}

func (c *counter) Warningf(string, ...any) { c.n++ }

// A connection that died without a word is noticed, whether or not there was one.
func TestSilentStream(t *testing.T) {
	for _, first := range []string{"", ": puppetsrv\n\ndata: {}\n\n"} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaEvents)
			fmt.Fprint(w, first)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})}
		done := make(chan struct{})
		go func() { defer close(done); h.Serve(l) }()
		defer func() { h.Close(); <-done }()
		c, err := NewClient("unix://"+path, ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.silence = 50 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		events := 0
		err = c.Events(ctx, 0, func(Event) error { events++; return nil })
		var u *UnreachableError
		if !errors.As(err, &u) || !strings.Contains(err.Error(), "heartbeats") || events == 1 != (first != "") {
			t.Errorf("after %q: got %v and %d events", first, err, events)
		}
	}
}
