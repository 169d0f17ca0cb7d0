package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/postgres"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// A server that hangs is stopped, in bounded time; what its sessions held is lost, what
// was committed is not.
func TestStoppingAServerThatHangs(t *testing.T) {
	a := newPrimary(t, configured(func(c *postgres.Config) {
		c.StopTimeout, c.LookTimeout = time.Second, 300*time.Millisecond
	})).open()
	a.exec("INSERT INTO rows VALUES (1)")
	a.signal(syscall.SIGSTOP)
	a.is(role.Unknown, "")
	begin := time.Now()
	done := a.become(role.Closed)
	if took := time.Since(begin); took > patience {
		t.Errorf("it took %s", took)
	}
	if !strings.Contains(done[0], "killed") {
		t.Errorf("steps: %v", done)
	}
	if len(a.pids()) != 0 || !a.guarded() {
		t.Errorf("processes %v, guarded %v", a.pids(), a.guarded())
	}
	a.is(role.Closed, "guarded")
	a.become(role.Open)
	if !a.rows()[1] {
		t.Error("a committed row is lost")
	}
}

// Whatever the configured command says, the server is stopped.
func TestTheStopCommandIsNotBelieved(t *testing.T) {
	for _, stop := range []role.Command{{"true"}, {"false"}} {
		a := newPrimary(t, configured(func(c *postgres.Config) { c.Stop = stop })).open()
		done := a.become(role.Closed)
		if !strings.Contains(done[0], "shut down after") {
			t.Errorf("steps: %v", done)
		}
		a.is(role.Closed, "stopped (shut down), and guarded")
	}
}

// A session that is under way does not go on writing after the read-only fence, new
// ones cannot write; and it is undone.
func TestReadOnlyFence(t *testing.T) {
	a := newPrimary(t, configured(func(c *postgres.Config) { c.Fence = postgres.FenceReadOnly })).open()
	b := a.newStandby("b", nil)
	w := newWriter(t, a)
	w.more(20)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	idle, err := pgx.Connect(ctx, a.dsn())
	fatal(t, err)
	defer idle.Close(ctx)
	_, err = idle.Exec(ctx, "BEGIN; INSERT INTO rows VALUES (-2)")
	fatal(t, err)

	a.become(role.Closed)
	a.is(role.Closed, "read-only")
	if e := a.Evidence(ctx); e.Role != "primary" || !e.ReadOnly {
		t.Errorf("%+v", e)
	}
	if _, err := idle.Exec(ctx, "COMMIT"); err == nil {
		t.Error("a session that was under way commits")
	}
	a.cannotWrite()
	acked := len(w.all())
	a.exec("SELECT 1") // it can be read
	if n := len(w.all()); n != acked {
		t.Errorf("%d rows were written through the fence", n-acked)
	}
	closed := a.Evidence(ctx)
	deadline := time.Now().Add(patience)
	for e := b.Evidence(ctx); e.Received < closed.Written; e = b.Evidence(ctx) {
		if time.Now().After(deadline) {
			t.Fatalf("the standby does not get everything: %+v, %+v", e, closed)
		}
	}

	// The fence is in a file, and so still there after a restart.
	a.stop("fast")
	a.start()
	a.is(role.Closed, "read-only")
	a.become(role.Open)
	a.is(role.Open, "")
	w.more(1)
	w.stop()

	// Where stopping is the fence, a read-only primary is not closed.
	a.exec("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
	a.config.Fence = postgres.FenceStop
	a.open()
	a.await("the setting is in force", func(e evidence.PostgreSQL) bool { return e.ReadOnly })
	a.is(role.Unknown, "a session can set off")
	a.become(role.Closed)
	a.is(role.Closed, "stopped")

	// One that stands in postgresql.conf is not undone, but named.
	a.append("postgresql.conf", "default_transaction_read_only = on\n")
	a.config.PromoteTimeout = 2 * time.Second
	a.open()
	steps, err := a.Plan(a.Observe(ctx), role.Open)
	fatal(t, err)
	for i, s := range steps {
		_, err := s.Run(ctx)
		if last := i == len(steps)-1; last && (err == nil || !strings.Contains(err.Error(), "postgresql.conf line")) || !last && err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

// A planned stop with a standby that does not answer ends after wal_sender_timeout; no
// session writes meanwhile.
func TestStoppingWhileTheLinkIsCut(t *testing.T) {
	a := newPrimary(t).open()
	l := newLink(t, a)
	a.newStandby("b", l)
	w := newWriter(t, a)
	w.more(20)
	l.hold(true)
	w.more(20)
	begin := time.Now()
	a.become(role.Closed)
	t.Logf("stopped after %s", time.Since(begin).Round(time.Millisecond))
	w.stop()
	a.is(role.Closed, "stopped (shut down), and guarded")
	l.hold(false)
	a.become(role.Open)
	has := a.rows()
	for _, r := range w.all() {
		if !has[r.id] {
			t.Errorf("row %d was acknowledged, and is lost", r.id)
		}
	}
	if fmt.Sprint(a.pids()) == "[]" {
		t.Error("it does not run")
	}
}
