package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// live is a run of the program that a test watches.
type live struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr *seen
}

// seen is what was written so far.
type seen struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // has a value when there is something new
}

func newSeen() *seen { return &seen{more: make(chan struct{}, 1)} }

func (s *seen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	select {
	case s.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (s *seen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// until waits for a text.
func (s *seen) until(t *testing.T, text string) {
	t.Helper()
	late := time.After(30 * time.Second)
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.more:
		case <-late:
			t.Fatalf("%q does not come: %q", text, s)
		}
	}
}

func (s *site) start(args ...string) *live {
	s.t.Helper()
	l := &live{s.t, program(s.t, s.env, args...), newSeen(), newSeen()}
	l.cmd.Stdout, l.cmd.Stderr = l.stdout, l.stderr
	if err := l.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return l
}

// ends waits for the end, and wants a code and the whole of stderr.
func (l *live) ends(code int, stderr string) {
	l.t.Helper()
	l.cmd.Wait()
	if got := l.cmd.ProcessState.ExitCode(); got != code || l.stderr.String() != stderr {
		l.t.Errorf("%q ends with %d, want %d\n%q, want\n%q", l.cmd.Args, got, code, l.stderr, stderr)
	}
}

// Ctrl-C ends the program at once, and says what became of a write.
func TestInterrupted(t *testing.T) {
	s := newSite(t)
	env := s.env
	path := filepath.Join(t.TempDir(), "mute.sock")
	mute, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for _, end := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGINT, 130}, {syscall.SIGTERM, 143}} {
		s.env = append(env, "PUPPETSRV_SERVER=unix://"+path)
		l := s.start("status")
		conn, err := mute.Accept()
		if err != nil {
			t.Fatal(err)
		}
		l.cmd.Process.Signal(end.signal)
		l.ends(end.code, "")
		conn.Close()
		if l.stdout.String() != "" {
			t.Errorf("half an answer: %q", l.stdout)
		}
	}
	s.env = env

	s.set(func(f *fake) { f.hang = make(chan struct{}) })
	for _, command := range []string{"camaster set m3 --reason x", "drain m2 --reason x", "undrain m2"} {
		l := s.start(words(command)...)
		<-s.hanging
		l.cmd.Process.Signal(syscall.SIGINT)
		l.ends(130, "puppetsrvctl: interrupted; whether the write was done is not known: `puppetsrvctl history` says\n")
	}
	s.set(func(f *fake) { f.hang = nil })

	s.ns2.sticks()
	l := s.start(words("camaster set m3 --reason x --dns-wait 1m")...)
	l.stdout.until(t, " ms\n")
	l.cmd.Process.Signal(syscall.SIGINT)
	l.ends(130, "puppetsrvctl: interrupted while asking the nodes' DNS; the write stands\n")
	if !strings.HasSuffix(l.stdout.String(), " no: it still answers m1.example.net\n") {
		t.Errorf("half an answer: %q", l.stdout)
	}
	hang := make(chan struct{})
	s.set(func(f *fake) { f.hang = hang })
	l = s.start(words("camaster set m1 --reason x --dns-wait 1m -o json")...)
	<-s.hanging
	close(hang)
	l.cmd.Process.Signal(syscall.SIGINT)
	l.cmd.Wait()
	if text := l.stdout.String(); text != "" && !json.Valid([]byte(text)) {
		t.Errorf("half an answer: %q", text)
	}

	l = s.start("watch")
	l.stdout.until(t, "timeout (ns1)\n")
	l.cmd.Process.Signal(syscall.SIGINT)
	l.ends(130, "")
}

// A watch outlives the node: every event is printed once, whatever happens to the
// connection, and its loss is told once.
func TestWatchConnectsAgain(t *testing.T) {
	f := newFake(t)
	path := socket(t)
	server := f.listen(t, path)
	s := &site{f, t, environment(t, "PUPPETSRV_SERVER=unix://"+path)}
	l := s.start("watch", "--count", "5", "-o", "json")
	l.stdout.until(t, `"id":3,`)
	end(server)
	l.stderr.until(t, "; trying again until Ctrl-C\n")
	// While it starts, it says that it is not ready.
	early, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 100)
	starting := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte(`{"status":503,"type":"not-ready","detail":"not yet"}`))
		asked <- struct{}{}
	})}
	go starting.Serve(early)
	<-asked
	starting.Close()
	f.happen(admin.Event{ID: 4, Kind: "member", Time: started, Node: "ns1", Subject: "ns2", Text: "dead"})
	f.listen(t, path)
	l.stdout.until(t, `"id":4,`)
	f.happen(admin.Event{ID: 5, Kind: "member", Time: started, Node: "ns1", Subject: "ns2", Text: "alive"})
	l.cmd.Wait()
	if code := l.cmd.ProcessState.ExitCode(); code != exitDone {
		t.Errorf("it ends with %d: %s", code, l.stderr)
	}
	var ids []uint64
	for line := range strings.Lines(l.stdout.String()) {
		var e admin.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	if len(ids) != 5 || ids[0] != 1 || ids[4] != 5 {
		t.Errorf("events %v", ids)
	}
	if n := strings.Count(l.stderr.String(), "\n"); n != 1 {
		t.Errorf("the loss is told %d times:\n%s", n, l.stderr)
	}
	s.want(exitDone, words("watch --after 3 --count 1 -o json"), `"id":4,`)
}

// A socket that this user may not open is a matter of permission, not of reach.
func TestPermission(t *testing.T) {
	err := &admin.UnreachableError{Server: "unix:///run/x", Reason: "permission denied", Err: fs.ErrPermission}
	if code, text := verdict(context.Background(), err); code != exitForbidden || text != "unix:///run/x: permission denied" {
		t.Errorf("%d, %q", code, text)
	}
	err.Err = os.ErrNotExist
	if code, _ := verdict(context.Background(), err); code != exitUnreachable {
		t.Errorf("%d", code)
	}
}
