package postgres_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/postgres"
	"github.com/puppetsrv/puppetsrv/internal/role"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if stepping() {
		return
	}
	code := m.Run()
	if template.dir != "" {
		os.RemoveAll(template.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

// Every field of the evidence, of a primary, a standby, and both of them stopped.
func TestEvidence(t *testing.T) {
	a := newPrimary(t).open()
	b := a.newStandby("b", nil)
	before := time.Now()
	a.exec("INSERT INTO rows VALUES (1)")

	e := a.Evidence(t.Context())
	system := get[string](a, "SELECT system_identifier::text FROM pg_control_system()")
	flushed := evidence.LSN(get[int64](a, "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint"))
	if e.Role != "primary" || e.Error != "" || e.ReadOnly || e.Timeline != 1 || e.System != system || e.Written == 0 || e.Written > flushed || e.Received != 0 || e.Streaming || e.MaxLag != 1<<20 {
		t.Fatalf("primary: %+v; flushed %d, system %s", e, flushed, system)
	}
	a.is(role.Open, "primary, at ")

	// Without another write: an idle primary is asked, and Current goes on.
	e = b.await("it has everything", func(e evidence.PostgreSQL) bool {
		return e.Received >= flushed && e.Replayed >= flushed && e.Current.After(before)
	})
	lag, known := e.Lag()
	if e.Role != "standby" || e.Error != "" || e.Timeline != 1 || e.System != system || e.Written != 0 || !e.Streaming || e.PrimaryWritten < flushed ||
		e.PrimaryHeard.Before(e.Current) || time.Since(e.Current) > patience || lag != 0 || !known || time.Since(e.LastReplay) > patience {
		t.Fatalf("standby: %+v", e)
	}
	again := b.await("Current goes on", func(again evidence.PostgreSQL) bool { return again.Current.After(e.Current) })
	if again.PrimaryWritten != e.PrimaryWritten {
		t.Logf("the primary was not idle: %d, %d", again.PrimaryWritten, e.PrimaryWritten)
	}
	b.is(role.Standby, "standby, streaming")

	// The end of a primary that was shut down is what its standby has received.
	a.stop("fast")
	e = a.Evidence(t.Context())
	if e.Role != "stopped" || e.Error != "" || e.Timeline != 1 || e.System != system || e.Written == 0 {
		t.Fatalf("stopped primary: %+v", e)
	}
	a.is(role.Unknown, "without standby.signal")
	eb := b.await("it has all of the stopped primary", func(eb evidence.PostgreSQL) bool { return eb.Received >= e.Written && !eb.Streaming })
	if eb.Received != e.Written {
		t.Fatalf("the standby has received up to %X, and the stopped primary says that it ended at %X", eb.Received, e.Written)
	}
	b.is(role.Standby, "not streaming")

	// What it knows is kept over a restart of the member, and of the server.
	fatal(t, b.Close())
	b.Service = nil
	b.open()
	if again := b.Evidence(t.Context()); again.PrimaryWritten != eb.PrimaryWritten || !again.Current.Equal(eb.Current) {
		t.Fatalf("after a restart: %+v, before: %+v", again, eb)
	}
	b.stop("fast")
	e = b.Evidence(t.Context())
	if e.Role != "stopped" || e.Error != "" || e.Received != eb.Received || e.Written != 0 || e.PrimaryWritten != eb.PrimaryWritten {
		t.Fatalf("stopped standby: %+v, before: %+v", e, eb)
	}
	b.is(role.Closed, "stopped (shut down in recovery), and guarded")

	// A primary that was killed: nobody knows where its log ends.
	a.start()
	a.kill()
	if e = a.Evidence(t.Context()); e.Role != "stopped" || e.Written != 0 || !strings.Contains(e.Error, "where its log ends is not known") {
		t.Fatalf("killed primary: %+v", e)
	}
	if err := a.Clean(a.Observe(t.Context())); err == nil {
		t.Error("a killed primary is clean")
	}
}

// What the camaster's member says counts for the lag, and proves nothing.
func TestHeard(t *testing.T) {
	a := newPrimary(t)
	l := newLink(t, a)
	b := a.newStandby("b", l)
	e := b.Evidence(t.Context())
	l.hold(true)
	b.Heard(e.System, 1, e.Received+1000)
	b.Heard("1", 1, e.Received+5000) // of another cluster
	after := b.await("the source is known not to answer", func(e evidence.PostgreSQL) bool { return e.PrimaryWritten > e.Received })
	if lag, known := after.Lag(); !known || lag != 1000-uint64(after.Received-e.Received) || after.Current.After(time.Now()) {
		t.Fatalf("lag %d %v: %+v", lag, known, after)
	}
	l.hold(false)
}

// A server that does not answer is unknown, in bounded time; one of somebody else's is
// an error; a directory without a server is closed and not opened.
func TestWhatCannotBeSeen(t *testing.T) {
	a := newPrimary(t, configured(func(c *postgres.Config) { c.LookTimeout = 500 * time.Millisecond })).open()
	a.is(role.Open, "")
	a.signal(syscall.SIGSTOP)
	begin := time.Now()
	a.is(role.Unknown, "")
	if e := a.Evidence(t.Context()); e.Role != "unknown" || e.Error == "" {
		t.Errorf("of a server that hangs: %+v", e)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("two looks took %s", took)
	}
	a.signal(syscall.SIGCONT)
	a.await("it answers again", func(e evidence.PostgreSQL) bool { return e.Role == "primary" })

	config := a.config
	config.Data = filepath.Join(a.dir, "other")
	fatal(t, os.Mkdir(config.Data, 0o700))
	wrong, err := postgres.NewService(config)
	fatal(t, err)
	defer wrong.Close()
	o := wrong.Observe(t.Context())
	if o.State != role.Unknown || !strings.Contains(o.Detail, "have to be of one server") {
		t.Errorf("another server's socket: %s, %s", o.State, o.Detail)
	}
	if _, err := wrong.Plan(o, role.Open); err == nil {
		t.Error("somebody else's server would be opened")
	}
	a.stop("fast")
	o = wrong.Observe(t.Context())
	if o.State != role.Closed || !strings.Contains(o.Detail, "no PG_VERSION") {
		t.Errorf("a directory without data: %s, %s", o.State, o.Detail)
	}
	if steps, err := wrong.Plan(o, role.Closed); err != nil || len(steps) != 0 {
		t.Errorf("closing a directory without data: %v, %v", steps, err)
	}
	if _, err := wrong.Plan(o, role.Open); err == nil || !strings.Contains(err.Error(), "no PG_VERSION") {
		t.Errorf("opening a directory without data: %v", err)
	}

	// A damaged control file is not started.
	control := filepath.Join(a.data, "global/pg_control")
	good, err := os.ReadFile(control)
	fatal(t, err)
	fatal(t, os.WriteFile(control, append(append([]byte{}, good[:8]...), append([]byte{^good[8]}, good[9:]...)...), 0o600))
	o = a.Observe(t.Context())
	if o.State != role.Unknown || !strings.Contains(o.Detail, "damaged") {
		t.Errorf("a damaged control file: %s, %s", o.State, o.Detail)
	}
	if _, err := a.Plan(o, role.Open); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("opening with a damaged control file: %v", err)
	}
}

// A state file that is damaged is said, and is no lag of 0.
func TestADamagedStateFile(t *testing.T) {
	a := newPrimary(t)
	l := newLink(t, a)
	b := a.newStandby("b", l)
	fatal(t, b.Close())
	b.Service = nil
	l.hold(true)
	fatal(t, os.WriteFile(filepath.Join(string(b.disk), "postgresql.json"), []byte(`{"system": 7`), 0o600))
	b.config.Source = "" // nobody to ask; and the walreceiver's last words are old
	b.stop("fast")
	b.open()
	e := b.Evidence(t.Context())
	if _, known := e.Lag(); known || !strings.Contains(e.Error, "damaged") {
		t.Fatalf("%+v", e)
	}
	fatal(t, os.WriteFile(filepath.Join(string(b.disk), "postgresql-rejoin.json"), []byte(`{`), 0o600))
	o := b.Observe(t.Context())
	for _, to := range []role.State{role.Open, role.Standby} {
		if _, err := b.Plan(o, to); err == nil || !strings.Contains(err.Error(), "postgresql-rejoin.json is damaged") {
			t.Errorf("to %s with a damaged rejoin: %v", to, err)
		}
	}
	if _, err := b.Plan(o, role.Closed); err != nil {
		t.Errorf("closing has to be possible: %v", err)
	}
	l.hold(false)
}

// Several looks at a time, and a caller that has no time.
func TestConcurrentLooks(t *testing.T) {
	a := newPrimary(t).open()
	done := make(chan string)
	for range 8 {
		go func() {
			for range 10 {
				if o := a.Observe(t.Context()); o.State != role.Open {
					done <- o.Detail
					return
				}
				a.Evidence(t.Context())
			}
			done <- ""
		}()
	}
	for range 8 {
		if err := <-done; err != "" {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if o := a.Observe(ctx); o.State != role.Unknown {
		t.Errorf("without time: %s, %s", o.State, o.Detail)
	}
	a.is(role.Open, "")
	advice, err := a.Advise(t.Context())
	fatal(t, err)
	all := strings.Join(advice, "\n")
	for _, want := range []string{"fsync", "wal_keep_size", "source is not set"} {
		if !strings.Contains(all, want) {
			t.Errorf("advice lacks %q: %s", want, all)
		}
	}
}

// A look that outlives the service writes its state file no more.
func TestAfterClose(t *testing.T) {
	a := newPrimary(t)
	b := a.newStandby("b", nil)
	e := b.Evidence(t.Context())
	s := b.Service
	fatal(t, s.Close())
	b.Service = nil
	fatal(t, os.Remove(filepath.Join(string(b.disk), "postgresql.json")))
	s.Heard(e.System, e.Timeline+1, e.Received+100)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if e := s.Evidence(ctx); e.Error == "" {
		t.Errorf("it still looks: %+v", e)
	}
	if _, err := b.disk.Read("postgresql.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the state file was written: %v", err)
	}
}
