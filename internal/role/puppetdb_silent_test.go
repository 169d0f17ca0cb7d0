package role_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// How a PuppetDB answers for its status.
const (
	answers   = "answers"
	searching = "answers while its database does" // PuppetDB 7.12.1 takes 2 to 3 s without it
	silent    = "never answers"
)

// withPuppetDB has a hot PuppetDB on the machine, of which asked counts the questions that
// it cannot answer.
func (m *machine) withPuppetDB(how string) (with func(p *process, cfg *role.Config), asked *atomic.Int32) {
	asked = &atomic.Int32{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		open := m.is(m.service("postgresql")) == role.Open
		m.mu.Unlock()
		if how == silent || how == searching && !open {
			asked.Add(1)
			<-r.Context().Done()
			return
		}
		_, _ = w.Write([]byte("running"))
	}))
	m.t.Cleanup(srv.Close)
	m.t.Cleanup(srv.Client().CloseIdleConnections)
	return func(p *process, cfg *role.Config) {
		s, err := role.NewPuppetDB(role.PuppetDB{Hot: true, URL: srv.URL, Client: srv.Client(), PostgreSQL: func() role.State {
			for _, s := range p.ctl.Status().Services { // as a member does
				if s.Name == "postgresql" {
					return role.State(s.State)
				}
			}
			return role.Unknown
		}})
		if err != nil {
			m.t.Fatal(err)
		}
		cfg.Services[1] = s
	}, asked
}

// A PuppetDB whose database is closed takes seconds to say so. Nobody waits for that: a
// handover, and the news of who opens next, take as long as with one that answers at once.
func TestClosingDoesNotWaitForPuppetDB(t *testing.T) {
	took := make(map[string]time.Duration)
	for _, how := range []string{answers, searching} {
		m := newMachine(t, m1)
		with, asked := m.withPuppetDB(how)
		p := m.camaster(with)
		began := time.Now()
		p.ctl.Know(heard(2, handover(m1, m2)))
		p.state(evidence.Closed, version(2))
		if data := m.recorded().Data; data != role.Copy {
			t.Errorf("PuppetDB %s: closed, and its data counts as %s", how, data)
		}
		p.ctl.Recheck() // what a pass that has just begun costs the next one
		p.ctl.Know(heard(3, camaster.Value{Host: m2, From: m1}))
		p.state(evidence.Standby, version(3))
		took[how] = time.Since(began)
		// A look at it goes by what the report before said of PostgreSQL, so the first
		// report of a standby may still call it closed.
		p.until("a PuppetDB that stands by", func(r evidence.Role) bool { return r.Services[1].State == string(role.Standby) })
		p.stop()
		if n := asked.Load(); n > 0 {
			t.Errorf("PuppetDB %s: it was asked %d times while it could not answer", how, n)
		}
	}
	t.Logf("%v", took)
	if took[searching] > 3*took[answers]+2*time.Second { // it was six seconds
		t.Errorf("with a PuppetDB that takes its time it took %v, and %v without", took[searching], took[answers])
	}
}

// A PuppetDB that says nothing at all holds PostgreSQL back by nothing, and what opens
// after it by one look that ends soon.
func TestOpeningWithASilentPuppetDB(t *testing.T) {
	took := make(map[string]time.Duration)
	for _, how := range []string{answers, silent} {
		m := newMachine(t, m1)
		with, _ := m.withPuppetDB(how)
		p := m.run(with)
		p.ctl.Know(heard(1, to(m2)))
		p.state(evidence.Standby, version(1))
		began := time.Now()
		p.ctl.Know(heard(2, to(m1)))
		p.until("a CA that is open", func(r evidence.Role) bool { return r.Services[2].State == string(role.Open) })
		took[how] = time.Since(began)
		if how == silent {
			r := p.until("the look at PuppetDB", func(r evidence.Role) bool { return r.Services[1].State == string(role.Unknown) })
			if r.State != evidence.Opening {
				t.Errorf("it is %s: %s", r.State, r.Reason)
			}
			p.ctl.Know(heard(3, to(m2)))
			p.state(evidence.Closed, version(3)) // which needs no word of PuppetDB's
		}
		p.stop()
	}
	t.Logf("%v", took)
	if took[silent] > 3*took[answers]+2*time.Second { // it is looked at for a second
		t.Errorf("with a silent PuppetDB it took %v, and %v without", took[silent], took[answers])
	}
}

// A camaster's PuppetDB that is silent for a moment is no closed one.
func TestPuppetDBIsSilentForAMoment(t *testing.T) {
	url, client, word := db(t)
	s, err := role.NewPuppetDB(role.PuppetDB{Hot: true, URL: url, Client: client, PostgreSQL: func() role.State { return role.Open }})
	if err != nil {
		t.Fatal(err)
	}
	word.Store("hangs")
	began := time.Now()
	if o := s.Observe(t.Context()); o.State != role.Unknown {
		t.Errorf("%+v", o)
	}
	if took := time.Since(began); took > 2500*time.Millisecond { // the controller allows three
		t.Errorf("it took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if o := s.Observe(ctx); o.State != role.Unknown {
		t.Errorf("given up: %+v", o)
	}
}
