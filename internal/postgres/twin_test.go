package postgres_test

import (
	"errors"
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
	p := newPrimary(t)
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
	for _, tt := range []struct {
		name   string
		before func(a, b *cluster)
	}{
		{"after a crash", func(*cluster, *cluster) {}},
		// As after a boot: a walreceiver writes the source's log over what was here.
		{"started guarded", func(a, b *cluster) {
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
		{"the source was promoted again", func(_, b *cluster) {
			b.become(role.Closed)
			b.start()
			b.become(role.Open)
			if e := b.Evidence(t.Context()); e.Timeline != 3 {
				t.Fatalf("%+v", e)
			}
		}},
		// And has no log of its promotion any more.
		{"the source's first log is gone", func(_, b *cluster) {
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
			a, b := bothPromoted(t, func(*cluster, *cluster) {})
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

// By hand the commands are those of a base backup, never pg_rewind's.
func TestTwinTimelinesByHand(t *testing.T) {
	a, _ := bothPromoted(t, func(*cluster, *cluster) {})
	a.config.Rejoin = postgres.RejoinPrint
	a.open()
	steps, err := a.Plan(a.Observe(t.Context()), role.Standby)
	fatal(t, err)
	for _, s := range steps {
		if _, err = s.Run(t.Context()); err != nil {
			break
		}
	}
	var manual *postgres.ManualError
	if !errors.As(err, &manual) || !strings.Contains(err.Error(), "pg_basebackup --pgdata=") || strings.Contains(strings.Join(manual.Commands, "\n"), "pg_rewind") {
		t.Errorf("%v", err)
	}
}

// A promotion passes over a number of which its host has heard, so the first one's host is
// rewound, and another standby is not misled.
func TestPromotionPassesOverHeardTimelines(t *testing.T) {
	a, b := bothPromoted(t, func(a, b *cluster) {
		e := a.Evidence(t.Context())
		b.Heard(e.System, e.Timeline, e.Written)
	})
	if e := b.Evidence(t.Context()); e.Timeline != 3 {
		t.Fatalf("it heard of timeline 2, and is on %d", e.Timeline)
	}
	c := b.newStandby("c", nil)
	// The base backup began a new segment, whose first record pg_rewind would wait for.
	b.exec("INSERT INTO rows VALUES (501)")
	done := strings.Join(a.become(role.Standby), "\n")
	if !strings.Contains(done, "pg_rewind: rewound to") {
		t.Errorf("steps:\n%s", done)
	}
	rejoined(a, b)
	// A standby that lacks the number's history gets it as it is, and goes on.
	b.stop("fast")
	c.become(role.Open)
	if e := c.Evidence(t.Context()); e.Timeline != 4 {
		t.Errorf("the next promotion is to timeline %d", e.Timeline)
	}
}

// Of what cannot be true nothing is made, and a failover does not fail for it.
func TestPromotionWithAWildTimeline(t *testing.T) {
	p := newPrimary(t)
	b := p.newStandby("b", nil)
	e := b.Evidence(t.Context())
	b.Heard(e.System, 4000000000, e.Received)
	p.stop("fast")
	done := strings.Join(b.become(role.Open), "\n")
	if !strings.Contains(done, "timelines up to 4000000000 were heard of") || !strings.Contains(done, "timeline 1 -> 2") {
		t.Errorf("steps:\n%s", done)
	}
}
