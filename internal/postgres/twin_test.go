package postgres_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/postgres"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// bothPromoted are two standbys of one primary that is lost: a is promoted, has rows, and
// is lost; then b is promoted at the same place. between is what happens before that.
func bothPromoted(t *testing.T, between func(a, b *cluster)) (a, b *cluster) {
	t.Helper()
	return bothPromotedOf(t, newPrimary(t), between)
}

func bothPromotedOf(t *testing.T, p *cluster, between func(a, b *cluster)) (a, b *cluster) {
	t.Helper()
	a, b = p.newStandby("a", nil), p.newStandby("b", nil)
	p.exec("INSERT INTO rows VALUES (1)", "CHECKPOINT")
	p.stop("fast") // so that both have all of it
	end := evidence.LSN(get[int64](a, "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint"))
	b.await("it is where the other one is", func(e evidence.PostgreSQL) bool { return e.Replayed == end })
	a.become(role.Open)
	a.exec("INSERT INTO rows SELECT i, repeat('x', 500) FROM generate_series(100, 210) i")
	a.append("pg_hba.conf", "# of a alone\n")
	if e := a.Evidence(t.Context()); e.Timeline != 2 {
		t.Fatalf("%+v", e)
	}
	between(a, b)
	a.kill()
	b.become(role.Open)
	b.exec("INSERT INTO rows VALUES (500)")
	a.config.Rejoin, a.config.Source = postgres.RejoinRun, b.source()
	a.open()
	return a, b
}

// Two promotions at one place of which neither host knows have timelines of one number.
// The first one's host is not taken for a standby of the second's, and becomes one by a
// base backup: pg_rewind takes the two for one.
func TestTwinTimelines(t *testing.T) {
	nothing := func(*cluster, *cluster) {}
	for _, tt := range []struct {
		name    string
		between func(a, b *cluster)
		before  func(a, b *cluster)
	}{
		{"after a crash", nothing, nothing},
		{"the first one was promoted again", func(a, _ *cluster) {
			a.become(role.Closed)
			a.start()
			a.become(role.Open)
			if e := a.Evidence(t.Context()); e.Timeline != 3 {
				t.Fatalf("%+v", e)
			}
		}, nothing},
		// As after a boot: a walreceiver writes the source's log over what was here.
		{"started guarded", nothing, func(a, b *cluster) {
			promoted := time.Now()
			a.become(role.Closed)
			a.append("postgresql.auto.conf", "primary_conninfo = '"+b.source()+"'\n")
			b.exec("INSERT INTO rows SELECT i, repeat('x', 5000) FROM generate_series(501, 700) i", "CHECKPOINT")
			a.start()
			a.eventually("it has tried to stream", func() bool {
				log, err := os.ReadFile(a.data + ".log")
				return err == nil && strings.Contains(string(log), "started streaming WAL")
			})
			a.await("it was compared", func(evidence.PostgreSQL) bool {
				o := a.Observe(t.Context())
				return o.State == role.Closed && strings.Contains(o.Detail, "is another one")
			})
			if e := a.Evidence(t.Context()); e.Streaming || e.Current.After(promoted) {
				t.Errorf("a standby of another timeline has something of it: %+v", e)
			}
		}},
		// And since then the source has gone on, so that the number is not its newest.
		{"the source was promoted again", nothing, func(_, b *cluster) {
			b.become(role.Closed)
			b.start()
			b.become(role.Open)
			if e := b.Evidence(t.Context()); e.Timeline != 3 {
				t.Fatalf("%+v", e)
			}
		}},
		// And has no log of its promotion any more.
		{"the source's first log is gone", nothing, func(_, b *cluster) {
			for range 3 {
				b.exec("INSERT INTO rows SELECT max(id) + 1 FROM rows", "SELECT pg_switch_wal()", "CHECKPOINT")
			}
			b.exec("ALTER SYSTEM SET wal_keep_size = 0", "SELECT pg_reload_conf()", "CHECKPOINT")
			b.eventually("its first log is gone", func() bool {
				b.exec("INSERT INTO rows SELECT max(id) + 1 FROM rows", "SELECT pg_switch_wal()", "CHECKPOINT")
				found, _ := filepath.Glob(b.data + "/pg_wal/000000020000000000000003")
				return len(found) == 0
			})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := bothPromoted(t, tt.between)
			if e := b.Evidence(t.Context()); e.Timeline != 2 {
				t.Fatalf("not a twin: %+v", e)
			}
			tt.before(a, b)
			done := strings.Join(a.become(role.Standby), "\n")
			if !strings.Contains(done, "is another one") || !strings.Contains(done, "pg_rewind: not needed") || !strings.Contains(done, "pg_basebackup: done") {
				t.Errorf("steps:\n%s", done)
			}
			rejoined(a, b)
			// What was learned of its own promotion is of the old files.
			a.stop("fast")
			a.open()
			a.become(role.Standby)
			rejoined(a, b)
		})
	}
}

// What is known of a promotion is on disk when it is done: the power may go with it.
func TestTwinTimelinesAfterAPowerCut(t *testing.T) {
	p := newPrimary(t)
	a, b := p.newStandby("a", nil), p.newStandby("b", nil)
	p.stop("fast")
	a.become(role.Open)
	state, err := a.disk.Read("postgresql.json")
	fatal(t, err)
	fatal(t, a.Close())
	a.Service = nil
	fatal(t, a.disk.Write("postgresql.json", state))
	a.exec("INSERT INTO rows VALUES (100)")
	a.kill()
	b.become(role.Open)
	b.exec("INSERT INTO rows VALUES (500)")
	a.config.Rejoin, a.config.Source = postgres.RejoinRun, b.source()
	a.open()
	if done := strings.Join(a.become(role.Standby), "\n"); !strings.Contains(done, "is another one") {
		t.Errorf("steps:\n%s", done)
	}
}

// A source that streams and does not answer: whether its timeline is a twin is not known,
// and nothing is a copy of it.
func TestATwinThatOnlyStreams(t *testing.T) {
	a, b := bothPromoted(t, func(*cluster, *cluster) {})
	began := time.Now()
	a.config.Source = "host=127.0.0.1 port=1 user=replicator"
	a.open()
	a.become(role.Closed)
	a.append("postgresql.auto.conf", "primary_conninfo = '"+b.source()+"'\n")
	b.exec("INSERT INTO rows SELECT i, repeat('x', 5000) FROM generate_series(501, 700) i")
	a.start()
	streams := 0
	a.eventually("it has streamed a few times", func() bool {
		o := a.Observe(t.Context())
		if err := a.Follows(o); err == nil {
			t.Fatalf("it follows: %s, %s", o.State, o.Detail)
		}
		if e := a.Evidence(t.Context()); e.Streaming || e.Current.After(began) {
			t.Fatalf("%+v", e)
		}
		if strings.Contains(o.Detail, "which was made here") {
			if o.State != role.Closed {
				t.Fatalf("%s: %s", o.State, o.Detail)
			}
			streams++
		}
		return streams > 3
	})
}

// By hand the commands are those of a base backup, never pg_rewind's.
func TestTwinTimelinesByHand(t *testing.T) {
	a, _ := bothPromoted(t, func(*cluster, *cluster) {})
	a.config.Rejoin = postgres.RejoinPrint
	a.open()
	err := a.rejoins()
	var manual *postgres.ManualError
	if !errors.As(err, &manual) || !strings.Contains(err.Error(), "pg_basebackup --pgdata=") || strings.Contains(strings.Join(manual.Commands, "\n"), "pg_rewind") {
		t.Errorf("%v", err)
	}
}

// A standby that followed the first one's timeline is none of the second one's, though its
// walreceiver would stream.
func TestAStandbyOfATwinTimeline(t *testing.T) {
	p := newPrimary(t)
	c := p.newStandby("c", nil)
	_, b := bothPromotedOf(t, p, func(a, b *cluster) {
		c.stop("fast")
		c.append("postgresql.auto.conf", "primary_conninfo = '"+a.source()+"'\n")
		c.append("pg_hba.conf", "# of a alone\n")
		c.config.Source = a.source()
		c.open()
		c.start()
		end := evidence.LSN(get[int64](a, "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint"))
		c.await("it has all", func(e evidence.PostgreSQL) bool { return e.Streaming && e.Timeline == 2 && e.Replayed >= end })
	})
	c.config.Rejoin, c.config.Source = postgres.RejoinRun, b.source()
	c.open()
	c.await("it was compared", func(evidence.PostgreSQL) bool {
		o := c.Observe(t.Context())
		return o.State == role.Closed && strings.Contains(o.Detail, "is another one")
	})
	if done := strings.Join(c.become(role.Standby), "\n"); !strings.Contains(done, "pg_basebackup: done") {
		t.Errorf("steps:\n%s", done)
	}
	rejoined(c, b)
}

// Who follows one timeline after the other, through clean handovers, is never taken for a
// standby of a twin.
func TestTimelinesThatAreNoTwins(t *testing.T) {
	a := newPrimary(t)
	b := a.newStandby("b", nil)
	c := a.newStandby("c", nil)
	for i, to := range []*cluster{b, a, b} {
		from := []*cluster{a, b, a}[i]
		from.open()
		from.exec(fmt.Sprintf("INSERT INTO rows VALUES (%d)", i+1))
		from.become(role.Closed)
		to.become(role.Open)
		for _, s := range []*cluster{from, c} {
			s.config.Source, s.config.Rejoin = to.source(), postgres.RejoinPrint
			s.open()
			if s == c {
				c.stop("fast") // its conninfo is of the one before
			}
			steps, err := s.Plan(s.Observe(t.Context()), role.Standby)
			fatal(t, err)
			for _, step := range steps {
				_, err := step.Run(t.Context())
				fatal(t, err)
			}
			// Whatever it knows of the source is older or younger than what it follows.
			for range 30 {
				s.is(role.Standby, "streaming")
				if e := s.Evidence(t.Context()); int(e.Timeline) != i+2 {
					t.Fatalf("%+v", e)
				}
			}
		}
	}
}
