//go:build linux

package netns_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// When two hosts are rebooted, as of a flip.
const (
	before = "before"
	during = "during"
	after  = "after"
)

// blackout is two hosts that lose power at once, around a flip.
type blackout struct {
	hosts []string
	when  string
	// lost: the link is cut, and the flip is a failover, to whom it is cut from. Else it is a
	// switchover.
	lost bool
}

func (b blackout) String() string {
	kind := "switchover"
	if b.lost {
		kind = "failover behind a cut link"
	}
	return fmt.Sprintf("%s %s a %s", strings.Join(b.hosts, " and "), b.when, kind)
}

// Whatever two hosts are rebooted at once, before, during or after a flip: no two hosts
// ever sign under one version, no serial is used twice, a booted host signs nothing
// before it has been told, and in the end exactly the one that the register names signs.
func TestReboots(t *testing.T) {
	t.Parallel()
	for i, pair := range [][]string{{"ns1", "ns2"}, {"ns1", "m1"}, {"ns1", "m3"}, {"ns2", "m1"}, {"ns2", "m3"}, {"m1", "m3"}} {
		t.Run(strings.Join(pair, " and "), func(t *testing.T) {
			t.Parallel()
			s := newMemberSite(t, "m1", "m3")
			p := s.sample()
			camaster := "m1"
			for j, when := range []string{before, during, after} {
				camaster = blackout{pair, when, (i+j)%2 == 1}.happens(s, p, camaster)
			}
			p.verify()
			s.until(append(s.well(), s.stands(camaster), s.inStep()), patience)
		})
	}
}

// happens is a blackout with all that follows, until everything is well. It returns the new
// camaster.
func (b blackout) happens(s *memberSite, p *sampler, from string) (to string) {
	t := s.t
	t.Helper()
	to = s.other(from)
	at := s.nodes[nodeOf[datacenterOf[to]]]
	command := []string{"switchover", "--to", to, "--reason", b.String()}
	if b.lost {
		// It is asked for certificates all the time: the newest may not be there yet.
		command = append([]string{"failover", "--accept-data-loss", "--yes"}, command[1:]...)
		s.cut()
	}
	// What it waits for may need another write, and this is what gives up.
	command = append(command, "--role-wait", "5s", "--dns-wait", "2s")
	began := time.Now()
	reboot := func() {
		s.off(b.hosts...)
		p.lost(b.hosts...)
		s.boot(b.hosts...)
	}
	var o *order
	switch b.when {
	case before:
		reboot()
		o = s.order(at, command...)
		o.done()
	case during:
		o = s.order(at, command...)
		o.written(s, from)
		reboot()
		o.done()
	case after:
		o = s.order(at, command...)
		o.done()
		reboot()
	}
	s.net.Heal()
	mended := time.Now()
	// Who was camaster at the cut is closed, and nothing more; `rejoin` is for people.
	eventually(t, "everybody has been told of "+to, func() bool { return s.follow(to) })
	if r := s.role(from); r.Former {
		// Its member is up; that it lives again has yet to reach the node that is asked.
		eventually(t, at.name+" has heard the member of "+from, func() bool { return s.told(at, from) != nil })
		s.must(at, "rejoin", from)
	} else if r.State != evidence.Standby {
		t.Logf("%s: %s is %s (%s)", b, from, r.State, r.Reason)
	}
	// The status has problems while so much is signed: a standby is always a little behind.
	s.until([]condition{s.answers(whole), s.met(), s.stands(to), p.only(to)}, patience)
	t.Logf("%s, %s to %s: %d commands, %v to the last one's end, all is well %v after that, at %v", b, from, to, len(o.answers),
		o.ended.Sub(began).Round(10*time.Millisecond), time.Since(mended).Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
	return to
}

// A rebooted camaster that can reach only one of two nodes stays closed, and says which one
// it misses: a write stands when one node has it. A decision made since its start opens it.
func TestRebootedCamasterWaits(t *testing.T) {
	t.Parallel()
	s := newMemberSite(t, "m1", "m3")
	p := s.sample()
	eventually(t, "m1 signs", func() bool { return p.last("m1").serial > 0 })
	s.net.Cut(s.datacenter("m1"), s.datacenter("ns2"))
	s.off("m1")
	p.lost("m1")
	booted := time.Now()
	s.boot("m1")
	waits := func() bool {
		r := s.role("m1")
		return r.State == evidence.Waiting && slices.Equal(r.Waits, []string{"ns2.example.net"})
	}
	eventually(t, "m1 waits for ns2", waits)
	// It had heard ns1 then. Time changes nothing.
	for range 20 {
		_, refused := p.since("m1", booted)
		eventually(t, "m1 is asked again", func() bool { _, now := p.since("m1", booted); return now > refused })
		if !waits() {
			t.Fatalf("m1 waits no more: %+v", s.role("m1"))
		}
	}
	if n, asked := p.since("m1", booted); n > 0 {
		t.Errorf("while it waits m1 has signed %d of %d", n, asked+n)
	}
	if a := s.memberCtl("m1", "status"); !hasLine(a.stdout, "not heard", "ns2.example.net") || !hasLine(a.stdout, "role", "waiting", "ns2.example.net") {
		t.Errorf("the member's status does not say whom it waits for:\n%s", a)
	}
	eventually(t, "puppetsrvctl masters says whom m1 waits for", func() bool {
		return hasLine(s.must(s.nodes["ns1"], "masters").stdout, "m1.example.net", "waits for ns2.example.net")
	})

	began := time.Now()
	a := s.must(s.nodes["ns1"], "camaster", "set", "m1", "--force", "--yes", "--reason", "there is no other")
	eventually(t, "m1 signs again", func() bool { n, _ := p.since("m1", began); return n > 0 })
	t.Logf("m1 signs %v after the command was given:\n%s", p.last("m1").ended.Sub(began).Round(time.Millisecond), a.stdout)
	if r := s.role("m1"); !slices.Equal(r.Waits, []string{"ns2.example.net"}) {
		t.Errorf("m1 is open because it has heard all: %+v", r)
	}
	s.net.Heal()
	s.until([]condition{s.answers(whole), s.met(), s.stands("m1"), p.only("m1")}, patience)
	p.verify()
}

// other is who may be camaster too.
func (s *memberSite) other(name string) string {
	return s.capable[1-slices.Index(s.capable, name)]
}

// follow reports whether a host's role is open under the newest version that any node
// knows, and no other one is on its way.
func (s *memberSite) follow(camaster string) bool {
	version := s.status(s.nodes["ns1"]).Camaster.Version
	for _, name := range []string{"ns1", "ns2"} {
		if c := s.status(s.nodes[name]).Camaster; c.Host != camaster+".example.net" || c.Version != version || c.Handover != "" {
			return false
		}
	}
	for _, name := range s.capable {
		r := s.role(name)
		switch {
		case r.Version != version:
			return false
		case name == camaster && r.State != evidence.Open:
			return false
		case name != camaster && r.State != evidence.Standby && r.State != evidence.Closed:
			return false
		}
	}
	return true
}

// order is a command that an operator gives again until it is done.
type order struct {
	s       *memberSite
	command []string
	ended   time.Time
	answers []answered
	ok      bool
	err     error
	finish  chan struct{}
}

// order begins to give a command at a node.
func (s *memberSite) order(at *node, args ...string) *order {
	s.t.Helper()
	o := &order{s: s, command: args, finish: make(chan struct{})}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	s.t.Cleanup(func() { cancel(); <-o.finish })
	go func() {
		defer close(o.finish)
		for ctx.Err() == nil {
			if !o.give(ctx, at, args...) {
				o.ok = o.err == nil
				return
			}
			// Who was booted in the middle of handing over may have something that nobody can
			// get. Rather than accept that, an operator lets it open again.
			if last := o.answers[len(o.answers)-1]; strings.Contains(last.stderr, "booted since it was open") {
				if !o.give(ctx, at, "switchover", "--abort", "--reason", "it was booted meanwhile") && o.err != nil {
					return
				}
			}
			pause(ctx, 100*time.Millisecond)
		}
	}()
	return o
}

// give gives a command once, and reports whether it is to be given again.
func (o *order) give(ctx context.Context, at *node, args ...string) (again bool) {
	cmd := at.host.CommandContext(ctx, filepath.Join(bin, "puppetsrvctl"), args...)
	cmd.Env = append(environ(), "PUPPETSRV_SERVER="+at.socket(o.s.site))
	a, err := output(cmd)
	if err != nil {
		o.err = err
		return false
	}
	o.ended, o.answers = time.Now(), append(o.answers, a)
	return a.code != 0
}

// done waits until the command has succeeded.
func (o *order) done() {
	o.s.t.Helper()
	<-o.finish
	if n := len(o.answers); !o.ok {
		for _, a := range o.answers[max(0, n-3):] {
			o.s.t.Log(a)
		}
		o.s.t.Fatalf("puppetsrvctl %v, given %d times: not done; %v", o.command, n, o.err)
	}
}

// written waits until some node holds a version that the camaster before did not have, or
// the command has ended.
func (o *order) written(s *memberSite, from string) {
	s.t.Helper()
	old := s.role(from).Opened
	eventually(s.t, "a write, or an end", func() bool {
		select {
		case <-o.finish:
			return true
		default:
		}
		for _, name := range []string{"ns1", "ns2"} {
			if c := s.status(s.nodes[name]).Camaster; c.Version != "" && c.Version != old {
				return true
			}
		}
		return false
	})
}
