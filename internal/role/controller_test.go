package role_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// in runs a test on a machine, in a bubble.
func in(t *testing.T, f func(t *testing.T, m *machine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newMachine(t, m1)) })
}

// camaster makes the machine one.
func (m *machine) camaster(mutate ...func(p *process, cfg *role.Config)) *process {
	m.t.Helper()
	p := m.run(mutate...)
	p.ctl.Know(heard(1, to(m1)))
	p.state(evidence.Open, version(1))
	return p
}

func TestOpensInOrderAndClosesTheFencesFirst(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		var did []string
		m.setPace(func(p *process, what string) (time.Duration, error) {
			if !strings.HasPrefix(what, "look") {
				did = append(did, what)
			}
			return 10 * time.Millisecond, nil
		})
		p := m.run()
		defer p.stop()
		p.ctl.Know(heard(0, to("")))
		p.until("it waits", func(r evidence.Role) bool {
			return r.State == evidence.Waiting && strings.Contains(r.Reason, "never set")
		})
		p.ctl.Know(heard(1, to(m1)))
		r := p.state(evidence.Open, version(1))
		want := "prepare postgresql, open postgresql, prepare ca, open ca, prepare dashboard, open dashboard"
		if got := strings.Join(did, ", "); got != want {
			t.Errorf("it opened by %s\nwant %s", got, want)
		}
		var steps []string
		for _, s := range r.Steps {
			steps = append(steps, s.Name+" "+s.Service)
			if s.State != "done" || s.Version != version(1).String() || s.Milliseconds != 10 || s.Detail != "did "+s.Name+" "+s.Service {
				t.Errorf("a step is shown as %+v", s)
			}
		}
		if got := strings.Join(steps, ", "); got != want || r.Opened != version(1).String() || r.Reason != "" || r.Former {
			t.Errorf("shown are %+v", r)
		}
		did = nil
		p.ctl.Know(heard(2, to(m2)))
		r = p.state(evidence.Closed, version(2))
		want = "fence ca, fence postgresql, fence dashboard, tidy dashboard, tidy ca, tidy postgresql"
		if got := strings.Join(did, ", "); got != want {
			t.Errorf("it closed by %s\nwant %s", got, want)
		}
		if !r.Former || r.Opened != version(1).String() || !strings.Contains(r.Reason, "puppetsrvctl rejoin m1.example.net") {
			t.Errorf("shown are %+v", r)
		}
	})
}

// All steps are shown before the first is done.
func TestStepsAreShownAhead(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		m.setPace(func(*process, string) (time.Duration, error) { return 100 * time.Millisecond, nil })
		p := m.run()
		defer p.stop()
		p.ctl.Know(heard(1, to(m1)))
		r := p.until("a step", func(r evidence.Role) bool { return len(r.Steps) > 0 && r.Steps[0].State == "running" })
		var got []string
		for _, s := range r.Steps {
			got = append(got, s.Service+" "+s.Name+" "+s.State)
		}
		want := "postgresql prepare running, postgresql open planned, ca prepare planned, ca open planned, dashboard prepare planned, dashboard open planned"
		if strings.Join(got, ", ") != want || r.Steps[1].Detail != "will open postgresql" || r.State != evidence.Opening {
			t.Errorf("shown are %s in %+v", got, r)
		}
		p.state(evidence.Open, version(1))
	})
}

// What must not be open is closed within the time of a look, and said to be an error.
// Who did that wrote something, so a standby is none any more.
func TestDriftIsClosed(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.run()
		defer p.stop()
		p.ctl.Know(heard(1, to(m2)))
		p.state(evidence.Standby, version(1))
		m.mu.Lock()
		m.service("ca").state = role.Open
		m.mu.Unlock()
		time.Sleep(1100 * time.Millisecond)
		if m.anyOpen() {
			t.Fatalf("after a second: %s", m.states())
		}
		if r := p.state(evidence.Closed, version(1)); !r.Former || !strings.Contains(r.Reason, "data of its own") {
			t.Errorf("shown is %+v", r)
		}
		if r := m.recorded(); r.Data != role.Own {
			t.Errorf("recorded is %+v", r)
		}
	})
}

// The record says what was found before it is closed: after a crash nobody could see it.
func TestWhatIsFoundOpenIsRecordedFirst(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.run()
		defer func() { p.stop() }()
		p.ctl.Know(heard(1, to(m2)))
		p.state(evidence.Standby, version(1))
		m.setPoint(func(p *process, what string) {
			if what == "after fence ca" {
				p.kill()
			}
		})
		m.mu.Lock()
		m.service("ca").state = role.Open
		m.mu.Unlock()
		<-p.done
		m.setPoint(nil)
		p = m.run()
		p.ctl.Know(heard(1, to(m2)))
		if r := p.state(evidence.Closed, version(1)); !r.Former {
			t.Errorf("shown is %+v", r)
		}
	})
}

// A dashboard that is open on a standby is closed, and nothing has to rejoin.
func TestDriftOfAStatelessService(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.run()
		defer p.stop()
		p.ctl.Know(heard(1, to(m2)))
		p.state(evidence.Standby, version(1))
		m.mu.Lock()
		m.service("dashboard").state = role.Open
		m.mu.Unlock()
		p.until("drift", func(r evidence.Role) bool { return len(r.Steps) > 0 })
		p.state(evidence.Standby, version(1))
		if s := m.states(); s != "[standby standby standby standby]" {
			t.Error(s)
		}
	})
}

// What should be open and is not is opened again, and what opened with it.
func TestDriftIsOpened(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.camaster()
		defer p.stop()
		m.mu.Lock()
		m.service("postgresql").state = role.Closed
		m.mu.Unlock()
		time.Sleep(1100 * time.Millisecond)
		if m.states() != "[open open open open]" {
			t.Errorf("after a second: %s", m.states())
		}
		p.state(evidence.Open, version(1))
	})
}

// The newest knowledge ends a step that opens, and what was opened is closed.
func TestNewsEndsAnOpening(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		m.setPace(func(p *process, what string) (time.Duration, error) {
			if what == "open ca" {
				return 4 * time.Second, nil
			}
			return 0, nil
		})
		p := m.run()
		defer p.stop()
		p.ctl.Know(heard(1, to(m1)))
		p.until("opening of the ca", func(r evidence.Role) bool {
			return slices.ContainsFunc(r.Steps, func(s evidence.Step) bool {
				return s.Service == "ca" && s.Name == "open" && s.State == "running"
			})
		})
		began := time.Now()
		p.ctl.Know(heard(2, to(m2)))
		p.state(evidence.Closed, version(2))
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("closing began only when the step had ended: %v", took)
		}
		if m.anyOpen() {
			t.Error(m.states())
		}
	})
}

// News that come late, and one on the heels of the other, take nothing back.
func TestOldNews(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.camaster()
		defer p.stop()
		p.ctl.Know(heard(3, to(m2)))
		p.ctl.Know(heard(2, to(m1)))
		p.state(evidence.Closed, version(3))
		p.ctl.Know(heard(2, to(m1)))
		time.Sleep(5 * time.Second)
		if r := p.state(evidence.Closed, version(3)); m.anyOpen() || !r.Former {
			t.Errorf("%+v", r)
		}
	})
}

// What cannot be seen for a moment is what it was, if it should be that; what should be
// closed and cannot be seen is closed.
func TestPatience(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		blind := func(*process, string) (time.Duration, error) { return 0, errors.New("too many connections") }
		var steps atomic.Int32
		count := func(_ *process, what string) {
			if strings.HasPrefix(what, "before ") && !strings.HasPrefix(what, "before writing") {
				steps.Add(1)
			}
		}
		p := m.camaster()
		m.setPoint(count)
		m.setPace(blind)
		time.Sleep(9 * time.Second)
		if r := p.ctl.Status(); r.State != evidence.Open || steps.Load() > 0 || !strings.Contains(r.Services[0].Detail, "too many connections") {
			t.Errorf("after %d steps: %+v", steps.Load(), r)
		}
		p.until("the end of patience", func(r evidence.Role) bool { return r.State == evidence.Failed })
		m.setPace(nil)
		p.state(evidence.Open, version(1))

		m.setPace(blind)
		time.Sleep(2 * time.Second)
		steps.Store(0)
		p.ctl.Know(heard(2, to(m2)))
		p.until("a step", func(r evidence.Role) bool { return r.State == evidence.Failed })
		if steps.Load() == 0 {
			t.Error("what cannot be seen is left open")
		}
		m.setPace(nil)
		p.state(evidence.Closed, version(2))
		if err := p.ctl.Rejoin("a"); err != nil {
			t.Fatal(err)
		}
		p.state(evidence.Standby, version(2))
		steps.Store(0)
		m.setPace(blind)
		time.Sleep(9 * time.Second)
		if r := p.ctl.Status(); r.State != evidence.Standby || steps.Load() > 0 {
			t.Errorf("after %d steps: %+v", steps.Load(), r)
		}
		m.setPace(nil)
		p.state(evidence.Standby, version(2))
		p.stop()
	})
}

// What closes is closed to the end, whatever comes next.
func TestNewsEndNoClosing(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.camaster()
		defer p.stop()
		var fenced atomic.Int32
		m.setPoint(func(_ *process, what string) {
			if what == "after fence ca" {
				fenced.Add(1)
			}
		})
		m.setPace(func(_ *process, what string) (time.Duration, error) {
			if what == "fence ca" {
				return 2 * time.Second, nil
			}
			return 0, nil
		})
		p.ctl.Know(heard(2, handover(m1, m2)))
		time.Sleep(time.Second)
		p.ctl.Know(heard(3, to(m1)))
		p.state(evidence.Open, version(3))
		if fenced.Load() != 1 {
			t.Errorf("the ca was fenced %d times", fenced.Load())
		}
	})
}

// What was seen before a step says nothing of what is after it: a service that was being
// opened as the news came is closed, though it cannot be seen.
func TestNothingIsPresumedAfterAStep(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.run()
		p.ctl.Know(heard(1, to(m2)))
		p.state(evidence.Standby, version(1))
		m.setPoint(func(p *process, what string) {
			if what == "after open ca" {
				m.setPace(func(_ *process, what string) (time.Duration, error) {
					if what == "look at ca" {
						return 0, errors.New("too many open files")
					}
					return 0, nil
				})
				p.ctl.Know(heard(3, to(m2)))
			}
		})
		p.ctl.Know(heard(2, to(m1)))
		time.Sleep(3 * time.Second)
		if m.anyOpen() {
			t.Errorf("%s, %+v", m.states(), p.ctl.Status())
		}
		m.setPoint(nil)
		m.setPace(nil)
		p.state(evidence.Closed, version(3))
	})
}

// Nobody makes a standby of what cannot be seen.
func TestRejoinInTheDark(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.camaster()
		defer p.stop()
		p.ctl.Know(heard(2, to(m2)))
		p.state(evidence.Closed, version(2))
		m.setPace(func(_ *process, what string) (time.Duration, error) {
			if strings.HasPrefix(what, "look") {
				return 0, errors.New("too many open files")
			}
			return 0, nil
		})
		if err := p.ctl.Rejoin("a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if s := m.states(); s != "[closed closed closed closed]" {
			t.Errorf("%s, %+v", s, p.ctl.Status())
		}
		m.setPace(nil)
		p.state(evidence.Standby, version(2))
	})
}

// What is not about this host's role changes nothing: no step is ended by it.
func TestOtherNewsEndNothing(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		m.setPace(func(p *process, what string) (time.Duration, error) { return time.Second, nil })
		p := m.run()
		defer p.stop()
		p.ctl.Know(heard(1, to(m1)))
		for i := range 20 {
			k := heard(1, to(m1))
			k.Boot = uint64(i)
			p.ctl.Know(k)
			time.Sleep(300 * time.Millisecond)
		}
		for _, s := range p.state(evidence.Open, version(1)).Steps {
			if s.State != "done" || s.Milliseconds != 1000 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// A step that fails, or hangs, or does not even end when it is told to, keeps nobody
// else open, and is tried again for ever.
func TestOneServiceDoesNotHoldUpTheOthers(t *testing.T) {
	for _, how := range []string{"fails", "hangs", "hangs for good"} {
		t.Run(how, func(t *testing.T) {
			in(t, func(t *testing.T, m *machine) {
				p := m.camaster()
				var tries atomic.Int32
				free := make(chan struct{})
				m.setPace(func(p *process, what string) (time.Duration, error) {
					if what != "fence ca" {
						return 0, nil
					}
					tries.Add(1)
					switch how {
					case "hangs":
						return time.Hour, nil
					case "hangs for good":
						<-free
					}
					return 0, errors.New("no such thing")
				})
				p.ctl.Know(heard(2, to(m2)))
				p.until("failure", func(r evidence.Role) bool { return r.State == evidence.Failed && strings.Contains(r.Reason, "ca: ") })
				time.Sleep(time.Second)
				if s := m.states(); s != "[closed closed open closed]" {
					t.Errorf("the others are %s", s)
				}
				time.Sleep(time.Minute)
				if how != "hangs for good" && tries.Load() < 5 {
					t.Errorf("in a minute it was tried %d times", tries.Load())
				}
				if how == "hangs for good" && tries.Load() != 1 {
					t.Errorf("a service that hangs was called %d times", tries.Load())
				}
				m.setPace(nil)
				close(free)
				p.state(evidence.Closed, version(2))
				if m.anyOpen() {
					t.Error(m.states())
				}
				p.stop()
			})
		})
	}
}

// A service that cannot open keeps no other closed, and the role has failed.
func TestOpeningFails(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		m.service("ca").diverged = true
		p := m.run()
		defer p.stop()
		p.ctl.Know(heard(1, to(m1)))
		r := p.state(evidence.Failed, version(1))
		p.until("the rest", func(evidence.Role) bool { return m.states() == "[open open standby open]" })
		if !strings.Contains(r.Reason, "ca: its files are not whole") {
			t.Errorf("%+v", r)
		}
		m.mu.Lock()
		m.service("ca").diverged = false
		m.mu.Unlock()
		p.ctl.Recheck()
		time.Sleep(10 * time.Millisecond)
		if r := p.ctl.Status(); r.State != evidence.Open {
			t.Errorf("after Recheck: %+v", r)
		}
	})
}

// Nothing opens if nothing can be opened: then the host has no data of its own either.
func TestARefusedOpeningLeavesNoTrace(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		for _, s := range m.svcs {
			s.diverged = true
		}
		m.svcs = slices.DeleteFunc(m.svcs, func(s *disked) bool { return s.name == "dashboard" })
		p := m.run()
		defer p.stop()
		p.ctl.Know(heard(1, to(m2)))
		p.until("a record", func(evidence.Role) bool { return m.recorded().Data == role.Copy })
		p.ctl.Know(heard(2, to(m1)))
		p.state(evidence.Failed, version(2))
		p.ctl.Know(heard(3, to(m2)))
		p.state(evidence.Standby, version(3))
	})
}

// A restart of the member leaves open what is open, without a step, whatever it hears
// of; until it hears of a newer one. A boot of the host does not.
func TestRestart(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.camaster()
		p.stop()
		m.setPoint(func(p *process, what string) {
			if !strings.HasPrefix(what, "before writing") && !strings.HasPrefix(what, "after writing") {
				t.Errorf("a restart does: %s", what)
			}
		})
		p = m.run()
		p.state(evidence.Open, version(1)) // before it knows anything
		p.ctl.Know(unheard(heard(0, to(""))))
		time.Sleep(5 * time.Second)
		p.ctl.Know(unheard(heard(1, to(m1))))
		time.Sleep(5 * time.Second)
		p.state(evidence.Open, version(1))

		// What is not open is not opened before it has heard all nodes.
		m.mu.Lock()
		m.service("ca").state = role.Closed
		m.mu.Unlock()
		p.state(evidence.Waiting, version(1))
		time.Sleep(5 * time.Second)
		if s := m.states(); s != "[open open closed open]" {
			t.Error(s)
		}
		m.setPoint(nil)
		p.ctl.Know(heard(1, to(m1)))
		p.state(evidence.Open, version(1))
		p.stop()

		p = m.run()
		p.ctl.Know(unheard(heard(2, to(m1))))
		r := p.state(evidence.Waiting, version(2))
		if m.anyOpen() || !strings.Contains(r.Reason, "ns2.example.net") || !slices.Equal(r.Waits, []string{"ns2.example.net"}) {
			t.Errorf("%s, %+v", m.states(), r)
		}
		p.ctl.Know(heard(2, to(m1)))
		p.state(evidence.Open, version(2))
		p.stop()

		m.reboot()
		p = m.run()
		defer func() { p.stop() }()
		p.until("closing", func(evidence.Role) bool { return !m.anyOpen() })
		p.ctl.Know(unheard(heard(2, to(m1))))
		p.state(evidence.Waiting, version(2))
		time.Sleep(5 * time.Second)
		if m.anyOpen() {
			t.Errorf("opened after a boot without hearing all nodes: %s", m.states())
		}
		p.ctl.Know(heard(2, to(m1)))
		p.state(evidence.Open, version(2))
	})
}

// A member that is new on a host that works gives the nodes a moment to say who is
// camaster before it closes anything.
func TestFirstStart(t *testing.T) {
	opened := func(m *machine) *process {
		for _, s := range m.svcs {
			s.state = role.Open
		}
		return m.run()
	}
	const all = "[open open open open]"
	t.Run("nobody says anything", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := opened(m)
			defer p.stop()
			time.Sleep(4 * time.Second)
			if got := m.states(); got != all {
				t.Errorf("after four seconds: %s", got)
			}
			p.until("closing", func(evidence.Role) bool { return !m.anyOpen() })
			p.ctl.Know(heard(1, to(m1)))
			p.state(evidence.Open, version(1))
		})
	})
	t.Run("it is the camaster", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := opened(m)
			defer p.stop()
			m.setPoint(func(p *process, what string) {
				if strings.Contains(what, "close") {
					t.Errorf("%s", what)
				}
			})
			time.Sleep(time.Second)
			p.ctl.Know(heard(1, to(m1)))
			p.state(evidence.Open, version(1))
			if got := m.states(); got != all {
				t.Errorf("%s", got)
			}
		})
	})
	t.Run("it is, and not all nodes were heard", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := opened(m)
			defer p.stop()
			m.setPoint(func(p *process, what string) {
				if strings.Contains(what, "close") {
					t.Errorf("%s", what)
				}
			})
			p.ctl.Know(unheard(heard(1, to(m1))))
			time.Sleep(29 * time.Second)
			if got, r := m.states(), p.ctl.Status(); got != all || r.State != evidence.Waiting {
				t.Errorf("%s, %+v", got, r)
			}
			p.ctl.Know(heard(1, to(m1)))
			p.state(evidence.Open, version(1))
		})
	})
	t.Run("it is, and not all nodes are heard in time", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := opened(m)
			defer p.stop()
			p.ctl.Know(unheard(heard(1, to(m1))))
			p.until("closing", func(evidence.Role) bool { return !m.anyOpen() })
		})
	})
	t.Run("another one is", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := opened(m)
			defer p.stop()
			time.Sleep(time.Second)
			p.ctl.Know(heard(1, to(m2)))
			p.until("closed", func(r evidence.Role) bool { return !m.anyOpen() && r.State == evidence.Closed && r.Former })
		})
	})
	t.Run("nobody was ever", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := opened(m)
			defer p.stop()
			p.ctl.Know(heard(0, to("")))
			time.Sleep(time.Hour)
			r := p.ctl.Status()
			if got := m.states(); got != all || r.State != evidence.Waiting || !strings.Contains(r.Reason, "left as it is") {
				t.Errorf("%s, %+v", got, r)
			}
			p.ctl.Know(heard(1, to(m2)))
			p.until("closing", func(evidence.Role) bool { return !m.anyOpen() })
		})
	})
}

// A handover is clean if the host itself closed what it had opened, and nobody else can
// have been camaster since.
func TestHandoverThatIsNotClean(t *testing.T) {
	tests := []struct {
		name string
		do   func(m *machine, p *process) *process
		why  string
	}{
		{"another one was camaster in between", func(m *machine, p *process) *process {
			k := heard(5, handover(m1, m2))
			p.ctl.Know(k)
			return p
		}, "another host may have been camaster"},
		{"the host was booted", func(m *machine, p *process) *process {
			p.stop()
			m.reboot()
			m.service("postgresql").unclean = false
			p = m.run()
			p.ctl.Know(heard(2, handover(m1, m2)))
			return p
		}, "the host was booted"},
		{"PostgreSQL was killed", func(m *machine, p *process) *process {
			p.stop()
			m.service("postgresql").state, m.service("postgresql").unclean = role.Closed, true
			p = m.run(func(p *process, cfg *role.Config) {})
			p.ctl.Know(heard(2, handover(m1, m2)))
			return p
		}, "postgresql: it did not end well"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in(t, func(t *testing.T, m *machine) {
				p := m.camaster()
				if tt.name == "PostgreSQL was killed" {
					// The member must not open it again before it knows of the handover.
					p.kill()
				}
				p = tt.do(m, p)
				defer func() { p.stop() }()
				r := p.until("closing", func(r evidence.Role) bool { return r.State == evidence.Closed && strings.Contains(r.Reason, "rejoin") })
				if !strings.Contains(r.Reason, tt.why) {
					t.Errorf("%q", r.Reason)
				}
				p.ctl.Know(heard(6, to(m2)))
				if r := p.state(evidence.Closed, version(6)); !r.Former {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// Nothing is handed over cleanly that cannot be seen to be closed.
func TestHandoverInTheDark(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.camaster()
		m.setPace(func(_ *process, what string) (time.Duration, error) {
			if what == "look at ca" {
				return 0, errors.New("too many open files")
			}
			return 0, nil
		})
		p.ctl.Know(heard(2, handover(m1, m2)))
		time.Sleep(5 * time.Second)
		if r := p.ctl.Status(); r.State == evidence.Closed || m.recorded().Data != role.Own {
			t.Errorf("%+v", r)
		}
		m.setPace(nil)
		p.state(evidence.Closed, version(2))
		if r := m.recorded(); r.Data != role.Copy {
			t.Errorf("%+v", r)
		}
	})
}

// A handover that is written again, or of a version that was never opened because it
// came too late, is clean all the same.
func TestHandoverAgain(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.camaster()
		defer p.stop()
		m.setPace(func(*process, string) (time.Duration, error) { return 10 * time.Millisecond, nil })
		for i, v := range []camaster.Value{to(m1), handover(m1, m2), handover(m1, m3)} {
			p.ctl.Know(heard(uint64(i+2), v))
			time.Sleep(50 * time.Millisecond) // the first handover has not yet ended
		}
		p.state(evidence.Closed, version(4))
		if r := m.recorded(); r.Data != role.Copy {
			t.Errorf("recorded is %+v", r)
		}
		p.ctl.Know(heard(5, to(m3)))
		p.state(evidence.Standby, version(5))
	})
}

func TestRejoin(t *testing.T) {
	former := func(t *testing.T, m *machine) *process {
		p := m.camaster()
		p.ctl.Know(heard(2, to(m2)))
		p.state(evidence.Closed, version(2))
		return p
	}
	ended := func(id string) func(r evidence.Role) bool {
		return func(r evidence.Role) bool { return r.Rejoin != nil && r.Rejoin.ID == id && r.Rejoin.State != "running" }
	}
	t.Run("by hand", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := former(t, m)
			defer p.stop()
			m.service("postgresql").diverged = true
			if err := p.ctl.Rejoin("a"); err != nil {
				t.Fatal(err)
			}
			r := p.until("an end", ended("a"))
			if r.Rejoin.State != "manual" || r.Rejoin.Detail != "postgresql: run by hand: pg_rewind" || !r.Former || m.anyOpen() {
				t.Errorf("%+v, %+v", r, r.Rejoin)
			}
			m.mu.Lock()
			m.service("postgresql").diverged = false
			m.mu.Unlock()
			if err := p.ctl.Rejoin("b"); err != nil {
				t.Fatal(err)
			}
			if r := p.until("an end", ended("b")); r.Rejoin.State != "done" {
				t.Errorf("%+v", r.Rejoin)
			}
			if r := p.state(evidence.Standby, version(2)); r.Former || m.states() != "[standby standby standby standby]" {
				t.Errorf("%+v, %s", r, m.states())
			}
		})
	})
	t.Run("fails", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := former(t, m)
			defer p.stop()
			m.setPace(func(_ *process, what string) (time.Duration, error) {
				if what == "copy ca" {
					return 0, errors.New("no route to host")
				}
				return 0, nil
			})
			if err := p.ctl.Rejoin("a"); err != nil {
				t.Fatal(err)
			}
			r := p.until("an end", ended("a"))
			if r.Rejoin.State != "failed" || !strings.Contains(r.Rejoin.Detail, "ca: copy: no route to host") {
				t.Errorf("%+v", r.Rejoin)
			}
			m.setPace(nil)
			time.Sleep(10 * time.Second)
			if r := p.state(evidence.Closed, version(2)); !r.Former {
				t.Errorf("it went on after it had failed: %+v", r)
			}
		})
	})
	t.Run("refused", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := m.camaster()
			defer p.stop()
			for _, id := range []string{"", strings.Repeat("x", 65)} {
				if p.ctl.Rejoin(id) == nil {
					t.Errorf("id %q is taken", id)
				}
			}
			if err := p.ctl.Rejoin("a"); err != nil {
				t.Fatal(err)
			}
			if r := p.until("an end", ended("a")); r.Rejoin.State != "failed" || !strings.Contains(r.Rejoin.Detail, "it is the camaster, under 0.1") || r.State != evidence.Open {
				t.Errorf("%+v", r.Rejoin)
			}
		})
	})
	t.Run("becomes camaster in the middle", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := former(t, m)
			defer p.stop()
			m.setPace(func(_ *process, what string) (time.Duration, error) {
				if what == "copy postgresql" {
					return 4 * time.Second, nil
				}
				return 0, nil
			})
			if err := p.ctl.Rejoin("a"); err != nil {
				t.Fatal(err)
			}
			p.until("a step", func(r evidence.Role) bool { return r.Rejoin != nil })
			time.Sleep(time.Second)
			p.ctl.Know(heard(3, to(m1)))
			if r := p.state(evidence.Open, version(3)); r.Rejoin.State != "failed" {
				t.Errorf("%+v", r.Rejoin)
			}
		})
	})
	t.Run("the same again", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := former(t, m)
			defer p.stop()
			for range 2 {
				if err := p.ctl.Rejoin("a"); err != nil {
					t.Fatal(err)
				}
				p.state(evidence.Standby, version(2))
			}
			// Later it is a former camaster again: an old request is no new one.
			p.ctl.Know(heard(3, to(m1)))
			p.state(evidence.Open, version(3))
			p.ctl.Know(heard(4, to(m2)))
			if err := p.ctl.Rejoin("a"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			p.state(evidence.Closed, version(4))
		})
	})
}

func TestClear(t *testing.T) {
	from := func(old string) role.Knowledge {
		k := heard(2, to(m1))
		k.Value.From = old
		return k
	}
	asks := func(n *int, answer func(n int) (string, error)) func(p *process, cfg *role.Config) {
		return func(p *process, cfg *role.Config) {
			cfg.Clear = func(ctx context.Context, old string) (string, error) {
				if old != m2 {
					t.Errorf("asked of %s", old)
				}
				*n++
				return answer(*n)
			}
		}
	}
	t.Run("waits", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			n := 0
			p := m.run(asks(&n, func(n int) (string, error) {
				if n < 20 {
					return "postgresql is open there", nil
				}
				return "", nil
			}))
			defer p.stop()
			p.ctl.Know(from(m2))
			p.until("waiting", func(r evidence.Role) bool {
				return r.State == evidence.Opening && r.Reason == "it waits for m2.example.net: postgresql is open there"
			})
			if m.anyOpen() || m.recorded().Data == role.Own {
				t.Errorf("%s, %+v", m.states(), m.recorded())
			}
			p.state(evidence.Open, version(2))
			if n != 20 {
				t.Errorf("asked %d times", n)
			}
		})
	})
	t.Run("not for ever", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			n := 0
			p := m.run(asks(&n, func(int) (string, error) { return "it is open", nil }))
			defer p.stop()
			began := time.Now()
			p.ctl.Know(from(m2))
			p.state(evidence.Open, version(2))
			if took := time.Since(began); took < 29*time.Second || took > 32*time.Second {
				t.Errorf("waited for %v", took)
			}
		})
	})
	t.Run("not for who is not there", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			n := 0
			p := m.run(asks(&n, func(int) (string, error) { return "", errors.New("no route to host") }))
			defer p.stop()
			began := time.Now()
			p.ctl.Know(from(m2))
			p.state(evidence.Open, version(2))
			if took := time.Since(began); took > time.Second || n != 1 {
				t.Errorf("waited for %v, asked %d times", took, n)
			}
		})
	})
	t.Run("not for who does not answer", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			p := m.run(func(p *process, cfg *role.Config) {
				cfg.Clear = func(ctx context.Context, old string) (string, error) { <-ctx.Done(); return "", context.Cause(ctx) }
			})
			defer p.stop()
			began := time.Now()
			p.ctl.Know(from(m2))
			p.state(evidence.Open, version(2))
			if took := time.Since(began); took > 3100*time.Millisecond {
				t.Errorf("waited for %v", took)
			}
		})
	})
	t.Run("not when the news change", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			n := 0
			p := m.run(asks(&n, func(int) (string, error) { return "it is open", nil }))
			defer p.stop()
			p.ctl.Know(heard(1, to(m2)))
			p.state(evidence.Standby, version(1))
			p.ctl.Know(from(m2))
			p.state(evidence.Opening, version(2))
			p.ctl.Know(heard(3, to(m2)))
			p.state(evidence.Standby, version(3))
		})
	})
	t.Run("not on opening again", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			n := 0
			never := asks(&n, func(int) (string, error) { return "", nil })
			p := m.run(never)
			p.ctl.Know(from(m2))
			p.state(evidence.Open, version(2))
			p.stop()
			m.reboot()
			p = m.run(never)
			p.ctl.Know(from(m2))
			p.state(evidence.Open, version(2))
			p.stop()
			if n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	})
	t.Run("not of itself", func(t *testing.T) {
		in(t, func(t *testing.T, m *machine) {
			n := 0
			p := m.run(asks(&n, func(int) (string, error) { return "", nil }))
			defer p.stop()
			p.ctl.Know(from(m1))
			p.state(evidence.Open, version(2))
			if n != 0 {
				t.Errorf("asked %d times", n)
			}
		})
	})
}

// Without a disk nothing opens, and everything closes.
func TestDiskRefuses(t *testing.T) {
	for _, how := range []string{"is full", "hangs"} {
		t.Run(how, func(t *testing.T) {
			in(t, func(t *testing.T, m *machine) {
				full := func(free chan struct{}) func(string) error {
					return func(string) error {
						if how == "hangs" {
							<-free
						}
						return errors.New("no space left on device")
					}
				}
				free := make(chan struct{})
				m.setDiskf(full(free))
				p := m.run()
				p.ctl.Know(heard(1, to(m1)))
				r := p.state(evidence.Failed, version(1))
				if m.anyOpen() || !strings.Contains(r.Reason, "keeping the record of the role") {
					t.Errorf("%s, %+v", m.states(), r)
				}
				m.setDiskf(nil)
				close(free)
				p.state(evidence.Open, version(1))
				free = make(chan struct{})
				m.setDiskf(full(free))
				began := time.Now()
				p.ctl.Know(heard(2, to(m2)))
				p.until("closing", func(evidence.Role) bool { return !m.anyOpen() })
				if took := time.Since(began); took > 11*time.Second {
					t.Errorf("closed after %v", took)
				}
				close(free)
				m.setDiskf(nil)
				p.until("the record", func(evidence.Role) bool { return m.recorded().Newest.Version == version(2) })
				p.stop()
			})
		})
	}
}

// A damaged record is nothing to go by, and nothing to write over.
func TestDamagedRecord(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.camaster()
		p.stop()
		data := m.files[role.RecordFile]
		bad := slices.Clone(data)
		bad[len(bad)/2] ^= 1
		m.files[role.RecordFile] = bad
		p = m.run()
		p.ctl.Know(heard(1, to(m1)))
		r := p.until("closing", func(r evidence.Role) bool { return r.State == evidence.Failed && !m.anyOpen() })
		if m.anyOpen() || !strings.Contains(r.Reason, "reading the record of the role") || !strings.Contains(r.Reason, "put an undamaged copy there") {
			t.Errorf("%s, %+v", m.states(), r)
		}
		if err := p.ctl.Rejoin("a"); err == nil {
			t.Error("it rejoins")
		}
		p.ctl.Know(heard(2, to(m1)))
		time.Sleep(10 * time.Second)
		if m.anyOpen() || !slices.Equal(m.files[role.RecordFile], bad) {
			t.Error("it was opened, or written over")
		}
		p.stop()
		m.files[role.RecordFile] = data
		p = m.run()
		defer p.stop()
		p.ctl.Know(heard(2, to(m1)))
		p.state(evidence.Open, version(2))
	})
}

// A lost record makes no standby of a host that may have been camaster.
func TestLostRecord(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.camaster()
		p.ctl.Know(heard(2, to(m2)))
		p.state(evidence.Closed, version(2))
		p.stop()
		clear(m.files)
		p = m.run()
		defer p.stop()
		p.ctl.Know(heard(2, to(m2)))
		if r := p.until("a decision", func(r evidence.Role) bool { return r.Former }); r.State != evidence.Closed {
			t.Errorf("%+v", r)
		}
		time.Sleep(10 * time.Second)
		if s := m.states(); s != "[closed closed closed closed]" {
			t.Error(s)
		}
	})
}

// Plan changes nothing, with or without Run.
func TestPlan(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		p := m.run()
		defer p.stop()
		p.ctl.Know(heard(1, to(m2)))
		p.state(evidence.Standby, version(1))
		m.service("ca").diverged = true
		m.setPoint(func(_ *process, what string) { t.Errorf("planning does: %s", what) })
		steps, err := p.ctl.Plan(t.Context(), role.Open)
		if err == nil || err.Error() != "ca: its files are not whole" {
			t.Errorf("err %v", err)
		}
		var got []string
		for _, s := range steps {
			got = append(got, fmt.Sprint(s.Version, " ", s.Service, " ", s.Name, " ", s.State))
		}
		want := "0.1.ns1.example.net postgresql prepare planned, 0.1.ns1.example.net postgresql open planned, 0.1.ns1.example.net dashboard prepare planned, 0.1.ns1.example.net dashboard open planned"
		if strings.Join(got, ", ") != want {
			t.Errorf("planned are %s", got)
		}
		if len(p.ctl.Status().Steps) != 0 {
			t.Errorf("shown are %+v", p.ctl.Status().Steps)
		}
	})
}

// While nothing changes, nobody is told and nothing is written.
func TestQuiet(t *testing.T) {
	in(t, func(t *testing.T, m *machine) {
		told := 0
		p := m.camaster(func(_ *process, cfg *role.Config) { cfg.Changed = func() { told++ } })
		defer p.stop()
		time.Sleep(2 * time.Second)
		before := told
		m.setPoint(func(_ *process, what string) { t.Errorf("it does: %s", what) })
		for range 100 {
			p.ctl.Know(heard(1, to(m1)))
			time.Sleep(100 * time.Millisecond)
		}
		if told != before || told == 0 {
			t.Errorf("told %d times, and %d before", told, before)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	m := newMachine(t, m1)
	p := &process{m: m}
	s := &fake{p: p, s: m.svcs[0]}
	for _, cfg := range []role.Config{
		{Disk: p, Log: &logger{t: t}},
		{Host: m1, Log: &logger{t: t}},
		{Host: m1, Disk: p},
		{Host: m1, Disk: p, Log: &logger{t: t}, Services: []role.Service{s, s}},
	} {
		if _, err := role.New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}
