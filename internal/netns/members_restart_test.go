//go:build linux

package netns_test

import (
	"context"
	"crypto/tls"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// gone is that both nodes have given up the members on these masters.
func (s *memberSite) gone(names ...string) condition {
	return condition{"members gone", func() bool {
		for _, n := range s.nodes {
			for _, name := range names {
				if m := s.master(n, name).Member; m == nil || m.Fresh || m.State != "dead" {
					return false
				}
			}
		}
		return true
	}}
}

// A member that is killed changes no answer and closes nothing. Started again in the same
// boot it closes nothing that is open either, also where it can reach only one node.
func TestMemberDies(t *testing.T) {
	t.Parallel()
	s := newMemberSite(t, masters...)
	end := s.watch(20)
	p := s.sample()
	eventually(t, "m1 signs", func() bool { return p.last("m1").serial > 0 })
	version := s.role("m1").Opened
	began := time.Now()
	for round, cut := range []bool{false, true} {
		for _, name := range masters {
			s.programs[name+"-member"].end(syscall.SIGKILL)
		}
		s.until([]condition{s.gone(masters...), p.only("m1")}, patience)
		if cut {
			// m1 cannot know then whether there is a newer version. And ns2 cannot see it.
			end()
			end = s.watch(20, 120)
			s.net.Cut(s.datacenter("m1"), s.datacenter("ns2"))
		}
		for _, name := range masters {
			s.startMember(name)
		}
		open := condition{"m1 is open", func() bool { r := s.role("m1"); return r.State == evidence.Open && r.Opened == version }}
		if cut {
			s.until([]condition{open, {"m1 misses ns2", func() bool { return slices.Equal(s.role("m1").Waits, []string{"ns2.example.net"}) }}, p.only("m1")}, patience)
			s.net.Heal()
		}
		after := s.until([]condition{open, {"all are heard", func() bool { return len(s.role("m1").Waits) == 0 }}, s.stands("m1"), s.answers(whole), p.only("m1")}, patience)
		t.Logf("round %d, cut %t: %s", round, cut, figures(after))
	}
	end()
	p.stop()
	if n, refused := p.since("m1", began); refused > 0 || n == 0 {
		t.Errorf("m1 has signed %d, and refused %d", n, refused)
	}
	for _, g := range p.glimpses["m1"] {
		if g.boot != 0 && g.state != evidence.Open {
			t.Errorf("m1 was %s, under %s", g.state, g.version)
		}
	}
	if c := s.status(s.nodes["ns1"]).Camaster; c.Version != version {
		t.Errorf("the camaster's version is %s, and was %s", c.Version, version)
	}
	s.unique()
	s.until(append(s.well(), s.stands("m1"), s.inStep()), patience)
}

// A drain by the host's own member, before a restart of puppetserver: it comes last in every
// answer before the command returns, and that waits until no agent is connected.
func TestDrainBeforeRestart(t *testing.T) {
	t.Parallel()
	s := newMemberSite(t, masters...)
	agent := s.addHost("agent", "10.1.0.99")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := agent.Dial(ctx, "tcp", s.hosts["m2"].Addr.String()+":8140")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx); err != nil {
		t.Fatal(err)
	}
	drained := map[string][]string{"ns1": {"10 m1", "20 m3", "20 m4", "110 m2"}, "ns2": {"10 m3", "10 m4", "20 m1", "120 m2"}}
	const settle = time.Second
	type result struct {
		answered
		err    error
		listed map[string][]string
		at     time.Time
	}
	done := make(chan result, 1)
	began := time.Now()
	go func() {
		a, err := output(s.memberCommand(ctx, "m2", "drain", "--reason", "new JVM settings", "--wait", "--settle", settle.String(), "--timeout", "50s"))
		r := result{a, err, make(map[string][]string), time.Now()}
		for name, n := range s.nodes {
			r.listed[name] = s.listed(n)
		}
		done <- r
	}()
	t.Logf("listed last: %s", figures(s.until([]condition{s.answers(drained)}, patience)))
	// The agent's run goes on. Nothing announces that the command does not return: it would
	// be after the caches and the quiet time.
	const quiet = 5 * time.Second
	select {
	case r := <-done:
		t.Fatalf("it has returned while an agent is connected: %v", r.answered)
	case <-time.After(settle + quiet + 2*time.Second - time.Since(began)):
	}
	left := time.Now()
	conn.Close()
	r := <-done
	t.Logf("the command took %v, and returned %v after the agent had left: %v", r.at.Sub(began).Round(time.Millisecond), r.at.Sub(left).Round(time.Millisecond), r.answered)
	if r.err != nil || r.code != 0 {
		t.Fatalf("drain: %v, %v", r.answered, r.err)
	}
	// It looks five times a second.
	if d := r.at.Sub(left); d < quiet-300*time.Millisecond {
		t.Errorf("it has returned %v after the agent had left; an agent comes back within %v", d, quiet)
	}
	for name, want := range drained {
		if got := r.listed[name]; !slices.Equal(got, want) {
			t.Errorf("when it had returned %s answered %q, want %q", name, got, want)
		}
	}
	// What it is for.
	s.programs["m2"].end(syscall.SIGTERM)
	s.services("m2")
	if a := s.memberCtl("m2", "undrain"); a.code != 0 {
		t.Errorf("undrain: %v", a)
	}
	t.Logf("undrained: %s", figures(s.until(append(s.well(), s.stands("m1")), patience)))
}
