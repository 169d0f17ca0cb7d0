package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/postgres"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// The camaster is lost under constant writes, after its link was cut. What a node
// prints before the failover is "at most N bytes that are known of, and what was
// written since Current". What is really lost must not be more.
func TestFailoverLosesNoMoreThanItPrinted(t *testing.T) {
	for _, tt := range []struct {
		name string
		// source is whom the standby asks, given the link that it streams through.
		source func(a *cluster, l *link) string
		behind bool // the lag is known to be more than 0 at the end
	}{
		{"all is cut", func(_ *cluster, l *link) string { return l.source() }, false},
		// What is missing is known then, to the byte.
		{"the stream is cut", func(a *cluster, _ *link) string { return a.source() }, true},
		{"nobody is asked", func(*cluster, *link) string { return "" }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newPrimary(t)
			l := newLink(t, a)
			b := a.newStandby("b", l)
			b.config.Source = tt.source(a, l)
			b.open()
			w := newWriter(t, a)
			w.more(100)
			e := b.await("it hears of what is written", func(e evidence.PostgreSQL) bool {
				return !e.Current.IsZero() && e.Received > evidence.LSN(w.all()[0].end)
			})
			if tt.source(a, l) != "" && time.Since(e.Current) > patience/2 {
				t.Errorf("Current is %s old while nothing is wrong", time.Since(e.Current))
			}
			l.hold(true)
			cut := time.Now()
			w.more(300)
			var printed evidence.PostgreSQL
			b.await("it knows what it can", func(e evidence.PostgreSQL) bool {
				lag, known := e.Lag()
				printed = e
				return known && (!tt.behind || lag > 100*fillerSize && e.PrimaryHeard.After(cut))
			})
			w.more(200)
			a.kill()
			w.stop()

			b.is(role.Standby, "")
			done := strings.Join(b.become(role.Open), "\n")
			if !strings.Contains(done, "timeline 1 -> 2") {
				t.Errorf("steps: %s", done)
			}
			has := b.rows()
			lost, lostKnown, newest := 0, 0, time.Time{}
			for _, r := range w.all() {
				if has[r.id] {
					if evidence.LSN(r.end) <= printed.Received {
						continue
					}
					newest = r.at
					continue
				}
				lost++
				if !r.at.After(printed.Current) {
					t.Errorf("row %d was acknowledged %s before Current, and is lost", r.id, printed.Current.Sub(r.at))
				}
				if r.end != 0 && evidence.LSN(r.end) <= printed.PrimaryWritten && r.at.Before(printed.PrimaryHeard) {
					lostKnown++
				}
				if r.end != 0 && evidence.LSN(r.end) <= printed.Received {
					t.Errorf("row %d was at %X, received was up to %X, and it is lost", r.id, r.end, uint64(printed.Received))
				}
			}
			lag, _ := printed.Lag()
			if lost < 200 {
				t.Errorf("only %d rows are lost: the test shows nothing", lost)
			}
			if tt.behind && lostKnown == 0 {
				t.Error("no lost row is among the bytes that were printed: the test shows nothing")
			}
			if uint64(lostKnown*fillerSize) > lag {
				t.Errorf("%d rows of %d bytes are lost that were known of, and %d bytes were printed", lostKnown, fillerSize, lag)
			}
			all := w.all()
			t.Logf("printed: %d bytes, and what was written in the last %s; lost: %d of %d rows, the oldest acknowledged %s after Current, %d of them (%d bytes) within the bytes printed; newest kept %s",
				lag, all[len(all)-1].at.Sub(printed.Current).Round(time.Millisecond), lost, len(all), oldestLost(all, has).Sub(printed.Current).Round(time.Millisecond), lostKnown, lostKnown*fillerSize, newest.Format("05.000"))
			b.exec("INSERT INTO rows VALUES (0)")
			if e := b.Evidence(t.Context()); e.Role != "primary" || e.Timeline != 2 || e.PrimaryWritten != 0 {
				t.Errorf("after the failover: %+v", e)
			}
		})
	}
}

// An answer that is long under way says what was when the question came, not what is.
func TestTheTimeOfTheQuestionCounts(t *testing.T) {
	a := newPrimary(t)
	l := newLink(t, a)
	b := a.newStandby("b", nil)
	b.config.Source = l.source()
	b.open()
	b.await("it is asked", func(e evidence.PostgreSQL) bool { return time.Since(e.Current) < patience })
	l.silence(true)
	asked := get[time.Time](a, "SELECT clock_timestamp()")
	done := make(chan evidence.PostgreSQL)
	go func() { done <- b.Evidence(t.Context()) }()
	// Every replication connection but the standby's stream is who asks.
	a.eventually("the question was answered", func() bool {
		return get[bool](a, `SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'walsender' AND application_name = 'puppetsrv-member'
			AND state = 'idle' AND state_change > '`+asked.Format(time.RFC3339Nano)+`'`)
	})
	a.exec("INSERT INTO rows VALUES (1)")
	committed := time.Now()
	l.silence(false)
	if e := <-done; !e.Current.Before(committed) || e.Current.Before(asked) {
		t.Errorf("Current is %s after a commit that the answer does not know of, %s after the question", e.Current.Sub(committed), e.Current.Sub(asked))
	}
}

func oldestLost(all []ack, has map[int]bool) time.Time {
	for _, r := range all {
		if !has[r.id] {
			return r.at
		}
	}
	return time.Time{}
}

// A planned handover under constant writes, there and back again: no row that was
// acknowledged is lost, and the former primary follows without anything overwritten.
func TestHandoverLosesNothing(t *testing.T) {
	a := newPrimary(t)
	b := a.newStandby("b", nil)
	a.config.Source = b.source()
	a.open()
	w := newWriter(t, a)
	from, to := a, b
	for range 3 {
		w.more(50)
		begin := time.Now()
		from.become(role.Closed)
		closed := from.Evidence(t.Context())
		if err := from.Clean(from.Observe(t.Context())); err != nil {
			t.Errorf("a clean handover: %v", err)
		}
		if closed.Role != "stopped" || closed.Written == 0 || !from.guarded() {
			t.Fatalf("closed: %+v, guarded %v", closed, from.guarded())
		}
		to.await("it has everything", func(e evidence.PostgreSQL) bool {
			return e.Received >= closed.Written && e.Timeline == closed.Timeline && e.System == closed.System
		})
		to.become(role.Open)
		w.point(to)
		w.more(1)
		took := time.Since(begin)
		steps := strings.Join(from.become(role.Standby), "\n")
		if strings.Contains(steps, "pg_rewind") || strings.Contains(steps, "pg_basebackup") {
			t.Errorf("a clean handover overwrites: %s", steps)
		}
		from.is(role.Standby, "standby, streaming")
		from.cannotWrite()
		t.Logf("nobody could write for %s (each step is run twice)", took.Round(time.Millisecond))
		from, to = to, from
	}
	w.more(20)
	w.stop()
	all := w.all()
	for _, c := range []*cluster{from, to} {
		end := evidence.LSN(all[len(all)-1].end)
		if c == to {
			c.await("all is replayed", func(e evidence.PostgreSQL) bool { return e.Replayed >= end })
		}
		has := c.rows()
		for _, r := range all {
			if !has[r.id] {
				t.Errorf("%s lacks row %d", c.name, r.id)
			}
		}
	}
	t.Logf("%d acknowledged rows, none lost", len(all))
}

// A primary that comes back writes nothing: guarded while it is open, whoever starts
// it; else from the moment on at which it was closed.
func TestTheReturningPrimaryIsNotWritable(t *testing.T) {
	t.Run("guarded while open", func(t *testing.T) {
		a := newPrimary(t, configured(func(c *postgres.Config) { c.GuardOpen = true })).open()
		if steps := a.become(role.Open); len(steps) == 0 || !a.guarded() {
			t.Fatalf("open, and not guarded: %v", steps)
		}
		a.exec("INSERT INTO rows VALUES (1)")
		a.kill()
		a.is(role.Closed, "guarded")
		a.start()
		a.cannotWrite()
		a.is(role.Closed, "follows nobody")
		a.become(role.Open)
		if !a.guarded() {
			t.Error("open again, and not guarded")
		}
		if !a.rows()[1] {
			t.Error("its own row is lost")
		}
		a.exec("INSERT INTO rows VALUES (2)")
	})
	t.Run("closed after its return", func(t *testing.T) {
		a := newPrimary(t)
		b := a.newStandby("b", nil)
		a.config.Source = b.source()
		a.open()
		a.kill()
		a.is(role.Unknown, "its next start would make it writable")
		b.become(role.Open)
		a.become(role.Closed)
		a.is(role.Closed, "guarded")
		a.start()
		a.cannotWrite()
		if steps, err := a.Plan(a.Observe(t.Context()), role.Closed); err != nil || len(steps) != 0 {
			t.Errorf("a server in recovery is left running: %v, %v", steps, err)
		}
	})
	t.Run("open again after a reboot", func(t *testing.T) {
		a := newPrimary(t).open()
		a.exec("INSERT INTO rows VALUES (1)")
		a.kill()
		a.become(role.Open) // it was decided at once: as PostgreSQL does itself
		if e := a.Evidence(t.Context()); e.Timeline != 1 || e.Role != "primary" {
			t.Errorf("%+v", e)
		}
		a.kill()
		a.become(role.Closed)
		a.become(role.Open) // it was closed meanwhile
		if e := a.Evidence(t.Context()); e.Timeline != 2 || e.Role != "primary" || a.guarded() {
			t.Errorf("%+v", e)
		}
		a.exec("INSERT INTO rows VALUES (2)")
	})
}

// A promotion that was asked for may still happen when its step was cut off. Until its
// end was seen the server is no standby, and closing it stops it.
func TestAPromotionThatIsCutOff(t *testing.T) {
	a := newPrimary(t)
	b := a.newStandby("b", nil)
	a.kill()
	// The command asks for the promotion only after the step was cut off.
	b.config.Promote = postgres.PromoteCommand
	b.config.PromoteCommand = role.Command{"true"}
	b.open()
	steps, err := b.Plan(b.Observe(t.Context()), role.Open)
	fatal(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if detail, err := steps[0].Run(ctx); err == nil {
		t.Fatalf("promoted by `true`: %s", detail)
	}
	b.is(role.Unknown, "being promoted")
	b.open() // also to the next process
	b.is(role.Unknown, "being promoted")
	b.become(role.Closed)
	b.is(role.Closed, "stopped")

	// And if it happens, that is seen, and forgotten.
	b.config.Promote, b.config.PromoteCommand = "", nil
	b.open()
	b.become(role.Open)
	b.is(role.Open, "")
	b.open()
	b.is(role.Open, "")
}

// The other ways to promote.
func TestWaysToPromote(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(b *cluster)
	}{
		{"trigger", func(b *cluster) {
			b.config.Promote, b.config.TriggerFile = postgres.PromoteTrigger, b.dir+"/trigger"
			b.append("postgresql.auto.conf", "promote_trigger_file = '"+b.dir+"/trigger'\n")
			b.stop("fast")
			b.start()
		}},
		{"command", func(b *cluster) {
			b.config.Promote = postgres.PromoteCommand
			b.config.PromoteCommand = role.Command{"sh", "-c", "exec setpriv --reuid=" + osUser + " --clear-groups " + bin(b.t) + "/pg_ctl promote -s -D " + b.data}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newPrimary(t)
			b := a.newStandby("b", nil)
			if tt.name == "command" && credential() == nil {
				t.Skip("SKIPPED: the command is for root")
			}
			tt.set(b)
			b.open()
			b.become(role.Open)
			b.exec("INSERT INTO rows VALUES (1)")
		})
	}
}
