package role_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/role"
)

// db is a PuppetDB whose status service says what it is told to.
func db(t *testing.T) (url string, client *http.Client, word *atomic.Value) {
	word = &atomic.Value{}
	word.Store("running")
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status/v1/simple" {
			http.NotFound(w, r)
			return
		}
		s := word.Load().(string)
		switch s {
		case "running":
		case "hangs":
			<-r.Context().Done()
		case "garbage":
			s = strings.Repeat("<html>", 1000)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(s))
	}))
	t.Cleanup(srv.Close)
	client = srv.Client()
	t.Cleanup(client.CloseIdleConnections)
	return srv.URL, client, word
}

func TestPuppetDBHot(t *testing.T) {
	url, client, word := db(t)
	var pg atomic.Value
	pg.Store(role.Standby)
	s, err := role.NewPuppetDB(role.PuppetDB{Hot: true, URL: url + "/", Client: client, PostgreSQL: func() role.State { return pg.Load().(role.State) }})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		word string
		pg   role.State
		want role.State
	}{
		{"running", role.Standby, role.Standby}, // though it says that it can write
		{"running", role.Open, role.Open},
		{"running", role.Closed, role.Closed},
		{"running", role.Unknown, role.Unknown},
		{"starting", role.Open, role.Closed},
		{"garbage", role.Open, role.Closed},
		{"starting", role.Standby, role.Standby},
	} {
		word.Store(tt.word)
		pg.Store(tt.pg)
		o := s.Observe(t.Context())
		if o.State != tt.want || !strings.Contains(o.Detail, "PostgreSQL is "+string(tt.pg)) {
			t.Errorf("%+v: %+v", tt, o)
		}
		for _, to := range []role.State{role.Open, role.Closed, role.Standby} {
			steps, err := s.Plan(o, to)
			if fails := to != role.Open && (o.State == role.Open || o.State == role.Unknown); len(steps) != 0 || (err != nil) != fails {
				t.Errorf("%+v to %s: %v, %v", o, to, steps, err)
			}
		}
	}
}

func TestPuppetDBService(t *testing.T) {
	url, client, word := db(t)
	dir := t.TempDir()
	started, stopped := filepath.Join(dir, "started"), filepath.Join(dir, "stopped")
	s, err := role.NewPuppetDB(role.PuppetDB{URL: url, Client: client, Start: role.Command{"touch", started}, Stop: role.Command{"touch", stopped}, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for says, want := range map[string]role.State{"running": role.Open, "starting": role.Unknown, "stopping": role.Unknown, "garbage": role.Unknown} {
		word.Store(says)
		if o := s.Observe(t.Context()); o.State != want {
			t.Errorf("%s: %+v", says, o)
		}
	}
	word.Store("hangs")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if o := s.Observe(ctx); o.State != role.Unknown {
		t.Errorf("hanging: %+v", o)
	}

	word.Store("starting")
	go func() { // it answers some time after the command has run
		for i := 0; i < 1000; i++ {
			if _, err := os.Stat(started); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		word.Store("running")
	}()
	if got, err := bring(t, s, role.Open); err != nil || got != "start, wait until it answers" || s.Observe(t.Context()).State != role.Open {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := bring(t, s, role.Open); err != nil || got != "" {
		t.Errorf("again: %q, %v", got, err)
	}
	if got, err := bring(t, s, role.Standby); err != nil || got != "stop" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Stat(stopped); err != nil {
		t.Error(err)
	}

	word.Store("starting")
	steps, err := s.Plan(role.Observation{State: role.Closed}, role.Open)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := steps[1].Run(ctx); err == nil || !strings.Contains(err.Error(), "starting") {
		t.Errorf("it never answers, and %v", err)
	}
}

// A PuppetDB that does not run is closed.
func TestPuppetDBThatDoesNotRun(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	s, err := role.NewPuppetDB(role.PuppetDB{URL: srv.URL, Client: http.DefaultClient, Start: role.Command{"true"}, Stop: role.Command{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	o := s.Observe(t.Context())
	if o.State != role.Closed || o.Detail != "it does not run" {
		t.Errorf("%+v", o)
	}
	if got, err := bring(t, s, role.Standby); err != nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNewPuppetDBRefuses(t *testing.T) {
	yes, c := role.Command{"true"}, http.DefaultClient
	for _, p := range []role.PuppetDB{
		{}, {URL: "https://x", Start: yes, Stop: yes}, {URL: "https://x", Client: c, Start: yes}, {URL: "https://x", Client: c, Hot: true},
	} {
		if _, err := role.NewPuppetDB(p); err == nil || !strings.HasPrefix(err.Error(), "puppetdb: ") {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
