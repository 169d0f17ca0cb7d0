//go:build linux

package netns_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// streams is that a host's database is a standby that receives from the camaster's and has
// all that this one has written so far.
func (s *memberSite) streams(standby, camaster string) condition {
	return condition{standby + " streams", func() bool {
		for _, n := range []*node{s.nodes["ns1"], s.nodes["ns2"]} {
			a, b := s.told(n, standby), s.told(n, camaster)
			if a == nil || b == nil || a.PostgreSQL == nil || b.PostgreSQL == nil {
				return false
			}
			if p, q := a.PostgreSQL, b.PostgreSQL; p.Role != "standby" || !p.Streaming || q.Role != "primary" || p.Timeline != q.Timeline || p.System != q.System {
				return false
			}
		}
		return true
	}}
}

// The database moves with the role: nothing is lost by a switchover, nothing but what was
// said by a failover, and a former primary that comes back is not written to at any
// moment.
func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	s := newDatabaseSite(t)
	s.until([]condition{s.streams("m3", "m1")}, patience)
	w := s.db.write()
	w.more("m1", 50)
	s.switchesOver(w, "m1", "m3")
	s.switchesOver(w, "m3", "m1")
	s.failsOver(w)
	s.comesBack(w)
}

// switchesOver hands the role over under constant writes.
func (s *memberSite) switchesOver(w *writers, from, to string) {
	t := s.t
	t.Helper()
	began := time.Now()
	// The nodes hear of both databases at different times: what is written in between counts
	// as a lag, which may be too much for a moment.
	o := s.order(s.nodes[nodeOf[datacenterOf[to]]], "switchover", "--to", to, "--reason", "drill")
	o.done()
	a := o.answers[len(o.answers)-1]
	t.Logf("switchover to %s took %v, and was given %d times:\n%s", to, time.Since(began).Round(time.Millisecond), len(o.answers), a.stdout)
	if !containsAll(a.stdout, []string{"PHASE", "PostgreSQL promoted", "total"}) {
		t.Error("the table does not have the database")
	}
	w.more(to, 50)
	after := s.since(began, []condition{s.stands(to), s.streams(from, to)}, patience)
	t.Logf("%s follows: %s", from, figures(after))
	lost := w.missing(to)
	for _, a := range lost[:min(3, len(lost))] {
		t.Errorf("row %d, acknowledged by %s %v after the command was given, is not on %s", a.id, a.to, a.at.Sub(began), to)
	}
	most, at := w.longest(began)
	t.Logf("%d rows were acknowledged, %d are lost; nobody could write for %v, from %v after the command on", len(w.all()), len(lost), most.Round(time.Millisecond), at.Sub(began).Round(time.Millisecond))
	if kept, _ := filepath.Glob(s.db.data("m*") + ".*before-*"); len(kept) > 0 {
		t.Errorf("a switchover has overwritten something: %q", kept)
	}
}

// moved is what the object of failover -o json says of the loss.
type moved struct {
	Plan admin.Plan `json:"plan"`
	Open bool       `json:"open"`
}

// failsOver loses m1 with its last second, of which m3 knows nothing.
func (s *memberSite) failsOver(w *writers) {
	t, ns2 := s.t, s.nodes["ns2"]
	t.Helper()
	w.more("m1", 50)
	// The stream breaks, and nobody looks: m3 still hears how far m1 writes.
	s.db.exec("m3", "ALTER SYSTEM SET primary_conninfo = 'host=puppet-camaster.example.net port=9 user=replicator connect_timeout=2'", "SELECT pg_reload_conf()")
	eventually(t, "ns2 knows that m3 lacks too much", func() bool {
		e := s.told(ns2, "m3")
		if e == nil || e.PostgreSQL == nil {
			return false
		}
		lag, known := e.PostgreSQL.Lag()
		return known && lag > maxLag*5/4
	})
	s.cut()
	cut := time.Now()
	w.more("m1", 100)
	eventually(t, "m1 takes writes for a second that nobody hears of", func() bool { return time.Since(cut) > time.Second })
	s.off("m1")
	dead := time.Now()
	eventually(t, "ns2 lists the others last, and has given ns1 up", func() bool {
		m := s.master(ns2, "m1").Member
		return listsLost(s.listed(ns2)) && state(s.status(ns2), "ns1.example.net") == "dead" && m != nil && !m.Fresh
	})
	version := s.status(ns2).Camaster.Version
	refused := s.ctl(ns2, "failover", "--to", "m3", "--reason", "m1 is lost")
	t.Logf("without more: %v", refused)
	if refused.code != 3 || !containsAll(refused.stderr, []string{"bytes behind", "max_lag"}) {
		t.Error("a failover that loses more than max_lag is not refused with that reason")
	}
	if v := s.status(ns2).Camaster.Version; v != version {
		t.Errorf("a refused failover has written %s", v)
	}
	t.Logf("dry run:\n%s", s.ctl(ns2, "failover", "--to", "m3", "--dry-run", "--accept-data-loss").stdout)

	a := s.must(ns2, "failover", "--to", "m3", "--reason", "m1 is lost", "--accept-data-loss", "--yes", "-o", "json")
	var m moved
	if err := json.Unmarshal([]byte(a.stdout), &m); err != nil {
		t.Fatalf("%v: %s", err, a.stdout)
	}
	w.more("m3", 20)
	loss := m.Plan.Loss
	lost := w.missing("m3")
	known := 0
	for _, a := range lost {
		if !a.at.After(loss.Since) {
			t.Errorf("row %d is lost, and was acknowledged %v before what was said to be safe", a.id, loss.Since.Sub(a.at))
		}
		if a.at.After(dead) {
			t.Errorf("row %d, acknowledged by %s after m1 was dead, is lost", a.id, a.to)
		}
		if a.at.Before(cut) {
			known += rowSize
		}
	}
	t.Logf("said: %s; since %s. Lost: %d of %d rows, %d bytes of them from before the cut", loss.Detail, loss.Since.Format("05.000"), len(lost), len(w.all()), known)
	if !loss.Known || loss.Bytes <= maxLag || loss.Since.IsZero() || !m.Open {
		t.Errorf("it does not say what is lost: %+v", m)
	}
	if len(lost) < 100 {
		t.Errorf("only %d rows are lost: this shows nothing", len(lost))
	}
	w.stop()
	history := s.must(ns2, "history", "camaster").stdout
	if !strings.Contains(history, "bytes of log are known to be missing") {
		t.Errorf("the history does not say what was accepted:\n%s", history)
	}
}

// comesBack boots m1, whose database has what m3's has not.
func (s *memberSite) comesBack(w *writers) {
	t := s.t
	t.Helper()
	x := s.db.intrude("m2", "m1")
	// The link comes back later: until then m1 is the camaster for ns1, and m1's database, by
	// its primary_conninfo, a standby of itself.
	s.boot("m1")
	before := x.was("25006")
	eventually(t, "m1's database runs, and refuses writes", func() bool { return x.was("25006") > before+5 })
	if r := s.role("m1"); r.State != evidence.Waiting {
		t.Errorf("booted behind the cut m1 is %s: %s", r.State, r.Reason)
	}
	s.net.Heal()
	eventually(t, "m1 is closed", func() bool { r := s.role("m1"); return r.State == evidence.Closed && r.Former })
	s.until([]condition{s.answers(whole), s.met()}, patience)
	eventually(t, "everybody has been told of m3", func() bool { return s.follow("m3") })
	began := time.Now()
	a := s.must(s.nodes["ns1"], "rejoin", "m1")
	t.Logf("rejoin took %v:\n%s", time.Since(began).Round(time.Millisecond), a.stdout)
	if !containsAll(a.stdout, []string{"postgresql", "pg_rewind"}) {
		t.Error("it has returned before the database was rewound")
	}
	again := s.db.write()
	again.more("m3", 50)
	s.until([]condition{s.stands("m3"), s.streams("m1", "m3")}, patience)
	again.stop()
	eventually(t, "m1 has what m3 has", func() bool { return fmt.Sprint(s.db.rows("m1")) == fmt.Sprint(s.db.rows("m3")) })
	before = x.was("25006")
	eventually(t, "m1's database refuses writes as a standby", func() bool { return x.was("25006") > before+5 })
	x.stop()
	for _, at := range x.written[:min(3, len(x.written))] {
		t.Errorf("m1's database was written to at %s", at.Format("05.000"))
	}
	t.Logf("m1's database was written to %d times; refused: %v", len(x.written), x.refused)
	if kept, _ := filepath.Glob(s.db.data("m1") + ".*before-*"); len(kept) != 1 {
		t.Errorf("what m1 had and m3 has not is kept in %q", kept)
	}
	s.until(append(s.well(), s.stands("m3"), s.inStep()), patience)
}
