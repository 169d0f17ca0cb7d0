package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// timeless is an output without what differs from run to run.
func timeless(text string) string {
	text = regexp.MustCompile(` +\d+\.\d ms`).ReplaceAllString(text, " N ms")
	text = regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(text, "ADDRESS")
	text = regexp.MustCompile(`\d\d:\d\d:\d\d\.\d\d\d`).ReplaceAllString(text, "HH:MM:SS")
	lines := strings.SplitAfter(text, "\n")
	for i := 1; i < len(lines); i++ { // the nodes answer in any order
		if strings.HasPrefix(lines[i-1], "  ns2  ADDRESS") && strings.HasPrefix(lines[i], "  ns1  ADDRESS") {
			lines[i-1], lines[i] = lines[i], lines[i-1]
		}
	}
	return strings.Join(lines, "")
}

// progress is an output whose lines of DNS and of members come in any order.
func progress(text string) string {
	lines := strings.SplitAfter(timeless(text), "\n")
	for i := 0; i < len(lines); {
		j := i
		for j < len(lines) && strings.HasPrefix(lines[j], "  ") && !strings.Contains(lines[j], "TOOK") {
			j++
		}
		slices.SortStableFunc(lines[i:j], func(a, b string) int { return strings.Compare(b[:4], a[:4]) })
		i = j + 1
	}
	return strings.Join(lines, "")
}

// lost makes m1 and its member silent.
func (s *site) lost() {
	s.set(func(f *fake) {
		f.stage.dead["m1.example.net"] = true
		f.status.Masters[0].Member.State, f.status.Masters[0].Member.Fresh = "dead", false
	})
}

// hook is told of every call to the fake.
func (s *site) hook(called func(string)) { s.set(func(f *fake) { f.stage.called = called }) }

// rejoins counts how often a member was asked to rejoin.
func (s *site) rejoins() (n int) {
	s.set(func(f *fake) { n = f.stage.asked })
	return n
}

// is wants how everything is in the end.
func (s *site) is(camaster, m1, m3 string) {
	s.t.Helper()
	s.set(func(f *fake) {
		c := f.status.Camaster
		if trim(c.Host) != camaster || c.Handover != "" {
			s.t.Errorf("the camaster is %s, handing over to %q; want %s", c.Host, c.Handover, camaster)
		}
		for i, want := range map[int]string{0: m1, 2: m3} {
			if r := f.status.Masters[i].Member.Evidence.Role; r.State != want {
				s.t.Errorf("%s is %s, want %s", f.status.Masters[i].Host, r.State, want)
			}
			if d := f.status.Masters[i].Drain; d != nil {
				s.t.Errorf("%s is drained: %+v", f.status.Masters[i].Host, d)
			}
		}
	})
}

func TestFailover(t *testing.T) {
	s := newSite(t)
	s.members()
	s.lost()
	o := s.want(exitDone, words("failover --to m3 --reason drill --dry-run"), "it would be done")
	golden(t, "failover-plan", timeless(o.stdout))
	if n := len(s.History("camaster")); n != 1 {
		t.Fatalf("a dry run has written: %d", n)
	}
	o = s.want(exitDone, words("failover --to m3 --reason drill"))
	golden(t, "failover", progress(o.stdout))
	s.is("m3.example.net", evidence.Open, evidence.Open) // m1 knows nothing of it
	if w := s.History("camaster")[0]; w.Kind != admin.KindFailover || w.Forced || w.Reason != "drill" {
		t.Errorf("written: %+v", w)
	}
	s.want(exitDone, words("failover --to m3.example.net --reason drill"), "m3.example.net is the camaster already")
	if n := len(s.History("camaster")); n != 2 {
		t.Errorf("%d writes: what is so already was written again", n)
	}
}

func TestSwitchover(t *testing.T) {
	s := newSite(t)
	s.members()
	o := s.want(exitDone, words("switchover --to m3 --reason power --dry-run"))
	golden(t, "switchover-plan", timeless(o.stdout))
	o = s.want(exitDone, words("switchover --to m3 --reason power"))
	golden(t, "switchover", progress(o.stdout))
	s.is("m3.example.net", evidence.Standby, evidence.Open)
	var kinds []string
	for _, w := range slices.Backward(s.History("")) {
		kinds = append(kinds, strings.Join(strings.Fields(w.Key+" "+string(w.Kind)+" "+w.To), " "))
	}
	want := []string{"camaster m1.example.net.", "drain/m1.example.net drained", "camaster handover m1.example.net", "camaster switchover m3.example.net", "drain/m1.example.net undrained"}
	if !slices.Equal(kinds, want) {
		t.Errorf("written: %q", kinds)
	}
	s.want(exitDone, words("switchover --to m3 --reason power"), "already")
}

// A drain of somebody else's stays.
func TestSwitchoverKeepsAForeignDrain(t *testing.T) {
	s := newSite(t)
	s.members()
	s.want(exitDone, words("drain m1 --reason patches"))
	s.want(exitDone, words("switchover --to m3 --reason power"))
	s.set(func(f *fake) {
		if d := f.status.Masters[0].Drain; d == nil || d.Reason != "patches" {
			t.Errorf("m1's drain is %+v", d)
		}
	})
}

func TestMoveJSON(t *testing.T) {
	s := newSite(t)
	s.members()
	var plan admin.Plan
	if err := json.Unmarshal([]byte(s.want(exitDone, words("switchover --to m3 --dry-run -o json")).stdout), &plan); err != nil || plan.To != "m3.example.net" || !plan.Possible {
		t.Errorf("%v, %+v", err, plan)
	}
	var m moved
	o := s.want(exitDone, words("switchover --to m3 --reason x -o json"))
	d := json.NewDecoder(strings.NewReader(o.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%v\n%s", err, o.stdout)
	}
	if m.Kind != admin.KindSwitchover || m.From != "m1.example.net" || m.To != "m3.example.net" || !m.Open || len(m.Writes) != 2 || len(m.Answers) != 2 || len(m.Steps) != 6 || m.Plan == nil || m.Error != "" {
		t.Errorf("%s", o.stdout)
	}
	var names []string
	for _, p := range m.Phases {
		names = append(names, p.Name)
	}
	if want := []string{"drain", "handover written", "closed and handed over", "flip", "DNS on all nodes", "CA open", "PostgreSQL promoted", "PuppetDB open", "total"}; !slices.Equal(names, want) {
		t.Errorf("phases: %q", names)
	}
	if p := m.Phases[6]; p.Milliseconds != 20 || p.Done < m.Phases[3].Done {
		t.Errorf("%+v", p)
	}
	s.set(func(f *fake) {
		f.stage.conditions = []admin.Condition{{Name: "up", Passed: admin.PassForce, Detail: "m1 is down"}}
	})
	o = s.run(words("failover --to m1 --reason x -o json")...)
	if err := json.Unmarshal([]byte(o.stdout), &m); err != nil || o.code != exitRefused || !strings.Contains(m.Error, "m1 is down") {
		t.Errorf("%d, %v\n%s", o.code, err, o.stdout)
	}
}

// What is in the way refuses, unless the right flag passes over it; the plan says both.
func TestMoveIsRefused(t *testing.T) {
	s := newSite(t)
	g := s.members()
	s.lost()
	lag := admin.Condition{Name: "replication", Passed: admin.PassAcceptDataLoss, Detail: "PostgreSQL is 9 bytes behind"}
	down := admin.Condition{Name: "up", Passed: admin.PassForce, Detail: "m3.example.net is down: refused"}
	never := admin.Condition{Name: "another host", Detail: "nothing to do"}
	code := admin.Condition{Name: "code", Warning: true, Detail: "other code: production"}
	for _, test := range []struct {
		name       string
		conditions []admin.Condition
		flags      string
		refused    bool
	}{
		{"a warning", []admin.Condition{code}, "", false},
		{"a loss", []admin.Condition{code, lag}, "", true},
		{"a loss, forced", []admin.Condition{lag}, "--force", true},
		{"a loss, accepted", []admin.Condition{lag}, "--accept-data-loss", false},
		{"a rule", []admin.Condition{down}, "", true},
		{"a rule, accepted", []admin.Condition{down}, "--accept-data-loss", true},
		{"a rule, forced", []admin.Condition{down}, "--force", false},
		{"both, forced", []admin.Condition{down, lag}, "--force", true},
		{"both, accepted and forced", []admin.Condition{down, lag}, "--force --accept-data-loss", false},
		{"what nothing passes", []admin.Condition{never}, "--force --accept-data-loss", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.t = t
			s.set(func(f *fake) { f.stage.conditions = test.conditions })
			code := exitDone
			if test.refused {
				code = exitRefused
			}
			o := s.want(code, words("failover --to m3 --dry-run "+test.flags))
			if strings.Contains(o.stdout, "it would be refused\n") != test.refused || strings.Contains(o.stderr, test.conditions[len(test.conditions)-1].Detail) != test.refused {
				t.Errorf("%s%s", o.stdout, o.stderr)
			}
			if test.name == "both, forced" {
				golden(t, "failover-refused", timeless(o.stdout)+o.stderr)
			}
			if test.refused {
				before := len(s.History(""))
				if o := s.want(exitRefused, words("failover --to m3 --reason x "+test.flags)); !strings.Contains(o.stderr, "m3.example.net cannot safely become the camaster:\n") {
					t.Error(o.stderr)
				}
				if len(s.History("")) != before {
					t.Error("it was written all the same")
				}
			}
		})
	}
	s.t = t
	s.set(func(*fake) { g.conditions = nil })
	s.complains(exitUsage, words("failover --to m3"), "missing flags: --reason=TEXT\nsee `puppetsrvctl failover --help`")
	s.complains(exitUsage, words("switchover --reason x"), "missing flags: --to=HOST\nsee `puppetsrvctl switchover --help`")
	s.complains(exitUsage, words("switchover --to m3 --reason x --role-wait 0s"), "--role-wait is 0s: a switchover has to wait until the new camaster has everything")
	s.complains(exitUsage, words("switchover --abort"), "missing flags: --reason=TEXT\nsee `puppetsrvctl switchover --help`")
	s.complains(exitRefused, words("failover --to m9 --reason x"), "no master is called \"m9\"; `puppetsrvctl masters` lists them")
}

// Without members everything is as before, and failover says that it is by hand.
func TestMoveWithoutMembers(t *testing.T) {
	s := newSite(t)
	s.complains(exitRefused, words("failover --to m3 --reason x"), "m3.example.net cannot safely become the camaster:\n  - no member is known on m3.example.net: the CA and the database are moved by hand there (--force would pass over this)")
	s.want(exitDone, words("failover --to m3 --reason x --force --role-wait 1h"), "is now m3.example.net", "passed    member")
	s.complains(exitRefused, words("rejoin m1"), "no member is known on m1.example.net")
}

// A camaster that was lost a moment ago may still be seen up: that is looked at again.
func TestFailoverLooksAgain(t *testing.T) {
	s := newSite(t)
	g := s.members()
	s.lost()
	up := admin.Condition{Name: "camaster lost", Passed: admin.PassForce, Waits: true, Detail: "m1 is up"}
	s.set(func(*fake) { g.conditions = []admin.Condition{up} })
	plans := 0
	s.hook(func(call string) {
		if call == "plan" {
			if plans++; plans == 3 {
				s.set(func(f *fake) { f.stage.conditions[0].OK = true })
			}
		}
	})
	s.want(exitDone, words("failover --to m3 --reason x"))
	if plans < 3 {
		t.Errorf("%d plans", plans)
	}
}

// Whatever interrupts the command wherever: the same command again finishes it.
func TestMoveInterrupted(t *testing.T) {
	for _, command := range []string{"failover --to m3 --reason x", "switchover --to m3 --reason x"} {
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
			t.Run(fmt.Sprintf("%s %v", strings.Fields(command)[0], signal), func(t *testing.T) {
				t.Parallel()
				interrupted := 0
				for n := 1; !interruptedAt(t, command, signal, n); {
					interrupted++
					if n++; signal == syscall.SIGINT {
						n += 2 // a kill is the harder one
					}
				}
				if interrupted < 3 {
					t.Errorf("it was interrupted in %d places only", interrupted)
				}
			})
		}
	}
}

// interruptedAt runs a command, ends it at the nth call that it makes, and runs it again.
// It reports whether there was no nth call.
func interruptedAt(t *testing.T, command string, signal syscall.Signal, n int) (ended bool) {
	t.Helper()
	s := newSite(t)
	s.members()
	failover := strings.HasPrefix(command, "failover")
	if failover {
		s.lost()
	}
	c := program(t, s.env, words(command)...)
	var mu sync.Mutex
	calls, where := 0, ""
	started, gone := make(chan struct{}), make(chan struct{})
	s.hook(func(call string) {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls == n {
			where = call
			<-started
			c.Process.Signal(signal)
			if signal == syscall.SIGKILL {
				<-gone // the call is served to nobody
			}
		}
	})
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	close(started)
	c.Wait()
	close(gone)
	mu.Lock()
	ended = where == ""
	calls = 1 << 20
	mu.Unlock()
	s.want(exitDone, words(command))
	m1 := evidence.Standby
	if failover {
		m1 = evidence.Open
	}
	s.is("m3.example.net", m1, evidence.Open)
	kinds := make(map[admin.Kind]int)
	for _, w := range s.History("camaster") {
		kinds[w.Kind]++
	}
	if kinds[admin.KindFailover] > 1 || kinds[admin.KindHandover] > 1 || kinds[admin.KindSwitchover] > 1 {
		t.Errorf("at call %d, %s: written %v", n, where, kinds)
	}
	if t.Failed() {
		t.Fatalf("it was interrupted at call %d, %s", n, where)
	}
	return ended
}

func TestMoveSaysWhatStands(t *testing.T) {
	s := newSite(t)
	g := s.members()
	// m1 does not close.
	s.set(func(*fake) { g.stuck["m1.example.net"] = "postgresql: stop: time-out" })
	const goesOn = "\nthe same command again goes on from there"
	s.complains(exitIncomplete, words("switchover --to m3 --reason x --role-wait 300ms"), "m1.example.net is closed, and after 300ms m3.example.net cannot be the camaster yet:\n"+
		"  - m1.example.net is open\n  - m3.example.net has yet to receive"+
		"\n`puppetsrvctl switchover --abort` opens m1.example.net again; if that host is lost, `puppetsrvctl failover --to m3.example.net` goes on without it"+goesOn)
	// No flag flips in the middle of it.
	s.complains(exitIncomplete, words("switchover --to m3 --reason x --role-wait 300ms --force --accept-data-loss"), "m1.example.net is closed, and <...>\n<...>\n<...>\n<...>"+goesOn)
	s.want(exitDone, words("status"), "hands over to m3.example.net")
	s.set(func(f *fake) { delete(f.stage.stuck, "m1.example.net") })
	// What does not come true by itself is said with the flag that passes over it.
	s.set(func(f *fake) {
		f.stage.conditions = []admin.Condition{{Name: "replication", Passed: admin.PassAcceptDataLoss, Detail: "PostgreSQL on m1.example.net was killed"}}
	})
	s.complains(exitIncomplete, words("switchover --to m3 --reason x --role-wait 1s"), "m1.example.net is closed, and after 1s m3.example.net cannot be the camaster yet:\n"+
		"  - PostgreSQL on m1.example.net was killed (--accept-data-loss would pass over this)\n<...>"+goesOn)
	s.set(func(f *fake) { f.stage.conditions = nil })
	s.want(exitDone, words("switchover --abort --reason no"), "is now m1.example.net", "m1.example.net gets work again")
	s.is("m1.example.net", evidence.Open, evidence.Standby)
	s.want(exitDone, words("switchover --abort --reason no"), "m1.example.net hands over to nobody")
	// m3 does not open.
	s.hook(func(call string) {
		if call == "done switchover" {
			s.set(func(f *fake) { f.stage.stuck["m3.example.net"] = "ca: the set is not complete" })
		}
	})
	s.complains(exitIncomplete, words("switchover --to m3 --reason x --role-wait 500ms"), "m3.example.net is camaster, but after 500ms its role is not open: it is opening under <...>: ca: the set is not complete"+goesOn)
	s.complains(exitIncomplete, words("failover --to m3 --reason x --role-wait 300ms"), "m3.example.net is camaster, but after 300ms its role is not open: <...>"+goesOn)
	s.set(func(f *fake) { delete(f.stage.stuck, "m3.example.net") })
	s.want(exitDone, words("switchover --to m3 --reason x"))
	s.is("m3.example.net", evidence.Standby, evidence.Open)
}

// A handover that lost something goes on where that is accepted, and says what is lost.
func TestSwitchoverThatLoses(t *testing.T) {
	s := newSite(t)
	s.members()
	s.hook(func(call string) {
		if call != "done handover" {
			return
		}
		s.set(func(f *fake) {
			f.stage.conditions = []admin.Condition{{Name: "replication", Passed: admin.PassAcceptDataLoss, Detail: "PostgreSQL on m1.example.net was killed"}}
			f.stage.loss = admin.Loss{Detail: "not known: PostgreSQL was killed"}
		})
	})
	s.complains(exitIncomplete, words("switchover --to m3 --reason x --role-wait 1s"), "m1.example.net is closed, and <...>\n  - PostgreSQL <...> (--accept-data-loss would pass over this)\n<...>\n<...>")
	s.want(exitDone, words("switchover --to m3 --reason x --accept-data-loss"),
		"not met   replication: PostgreSQL on m1.example.net was killed", "loses     not known: PostgreSQL was killed\npassed    replication: PostgreSQL on m1.example.net was killed")
	s.is("m3.example.net", evidence.Standby, evidence.Open)
}

// camaster set ends a handover too, and waits for the role.
func TestCamasterSetWithMembers(t *testing.T) {
	s := newSite(t)
	g := s.members()
	s.set(func(*fake) { g.stuck["m1.example.net"] = "slow" })
	s.want(exitIncomplete, words("switchover --to m3 --reason x --role-wait 200ms"))
	s.set(func(*fake) { delete(g.stuck, "m1.example.net") })
	s.want(exitDone, words("camaster set m1 --reason back"), "is now m1.example.net")
	s.want(exitDone, words("undrain m1"))
	s.is("m1.example.net", evidence.Open, evidence.Standby)
	o := s.want(exitDone, words("camaster set m3 --reason x"), "puppetdb    promote")
	s.set(func(f *fake) {
		if r := f.status.Masters[2].Member.Evidence.Role; r.State != evidence.Open {
			t.Errorf("it did not wait for the role, which is %s:\n%s", r.State, o.stdout)
		}
	})
	s.set(func(*fake) { g.stuck["m1.example.net"] = "slow" })
	var set setResult
	o = s.run(words("camaster set m1 --reason x --role-wait 200ms -o json")...)
	if err := json.Unmarshal([]byte(o.stdout), &set); err != nil || o.code != exitIncomplete || set.Role == "" || set.Role == evidence.Open {
		t.Errorf("%d, %v\n%s", o.code, err, o.stdout)
	}
	s.want(exitDone, words("camaster set m3 --reason x --role-wait 0s"), "is now m3.example.net")
}

// A role that is open under an older version is not what is waited for.
func TestMoveWaitsForItsVersion(t *testing.T) {
	s := newSite(t)
	g := s.members()
	s.want(exitDone, words("camaster set m3 --reason x"))
	s.set(func(*fake) { g.heard = 8 })
	s.want(exitDone, words("camaster set m3 --reason x --force"))
	s.set(func(f *fake) {
		if r := f.status.Masters[2].Member.Evidence.Role; r.Version != f.status.Camaster.Version || r.State != evidence.Open {
			t.Errorf("it did not wait: %s under %s", r.State, r.Version)
		}
	})
}

// Another operator's write ends the waiting for one's own.
func TestMoveIsOvertaken(t *testing.T) {
	s := newSite(t)
	g := s.members()
	s.lost()
	s.set(func(*fake) { g.stuck["m3.example.net"] = "slow" })
	l := s.start(words("failover --to m3 --reason x")...)
	l.stdout.until(t, "is now m3.example.net")
	s.set(func(f *fake) {
		c := &f.status.Camaster
		c.Host, c.Version, c.Actor, c.Reason = "m1.example.net.", "2.9.ns2", "ops2", "it is back"
	})
	l.ends(exitIncomplete, "puppetsrvctl: version 2.9.ns2 was written meanwhile by ops2 (it is back): m1.example.net is camaster now; look at `puppetsrvctl history camaster`\nthe same command again goes on from there\n")
}

// A target that was started anew, and waits for a node that is gone, is written for again.
func TestFailoverToOneThatWaits(t *testing.T) {
	s := newSite(t)
	g := s.members()
	s.lost()
	s.want(exitDone, words("failover --to m3 --reason x"))
	s.set(func(f *fake) {
		r := f.status.Masters[2].Member.Evidence.Role
		r.State, r.Waits, r.Services = evidence.Waiting, []string{"ns2"}, services("closed")
		g.stuck["m3.example.net"] = "ns2 was not heard"
	})
	s.hook(func(call string) {
		if call == "done failover" {
			s.set(func(f *fake) { delete(f.stage.stuck, "m3.example.net") })
		}
	})
	s.want(exitDone, words("failover --to m3 --reason again"))
	if w := s.History("camaster"); len(w) != 3 || w[0].Kind != admin.KindFailover || w[0].Reason != "again" {
		t.Errorf("%+v", w)
	}
}

// The node may go away and come back while it is waited.
func TestMoveOutlivesTheNode(t *testing.T) {
	f := newFake(t)
	path := socket(t)
	server := f.listen(t, path)
	s := &site{f, t, environment(t, "PUPPETSRV_SERVER=unix://"+path)}
	g := s.members()
	s.lost()
	s.set(func(*fake) { g.stuck["m3.example.net"] = "slow" })
	l := s.start(words("failover --to m3 --reason x")...)
	l.stdout.until(t, "is now m3.example.net")
	end(server)
	s.set(func(f *fake) { delete(f.stage.stuck, "m3.example.net") })
	f.listen(t, path)
	l.ends(exitDone, "")
	s.is("m3.example.net", evidence.Open, evidence.Open)
}

func TestRejoin(t *testing.T) {
	s := newSite(t)
	g := s.members()
	s.want(exitDone, words("camaster set m3 --reason x")) // m1 closes, and was not handed over
	s.set(func(f *fake) {
		m := f.status.Masters[0].Member
		m.Evidence.Role.State, m.Evidence.Role.Former, m.Evidence.Role.Rejoin = evidence.Closed, true, nil
	})
	s.want(exitDone, words("masters"), "closed: rejoin makes it a standby")
	s.set(func(*fake) { g.rejoin = "manual" })
	o := s.want(exitIncomplete, words("rejoin m1"), "to be run on m1.example.net:\n  pg_rewind --target-pgdata=/x\n  systemctl start postgresql\n")
	if !strings.Contains(o.stderr, "by hand, and then by the same command again") {
		t.Error(o.stderr)
	}
	s.set(func(*fake) { g.rejoin = "failed" })
	s.want(exitFailed, words("rejoin m1"))
	s.set(func(*fake) { g.rejoin = "done" })
	var r rejoined
	before := s.rejoins()
	o = s.want(exitDone, words("rejoin m1.example.net -o json"))
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || r.Role != evidence.Standby || r.Rejoin.State != "done" || s.rejoins() != before+1 {
		t.Errorf("%v\n%s", err, o.stdout)
	}
	s.want(exitDone, words("rejoin m1"), "m1.example.net is a standby already")
	if s.rejoins() != before+1 {
		t.Error("it was asked again")
	}
	// One that is under way is waited for, and not asked for again.
	s.set(func(f *fake) {
		role := f.status.Masters[0].Member.Evidence.Role
		role.State, role.Former, role.Rejoin = evidence.Closed, true, &evidence.Rejoin{ID: "earlier", State: "running"}
		g.slow = 3
	})
	s.want(exitDone, words("rejoin m1"), "m1.example.net is a standby\n")
	if s.rejoins() != before+1 {
		t.Error("it was asked again")
	}
}
